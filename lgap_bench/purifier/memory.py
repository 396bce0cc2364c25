"""What an exact gradient may hold in memory: which steps keep their graph, and how the others are computed again.

A step that keeps its graph holds every layer's activations until its backward pass. One that does not holds its input
alone, and is computed a second time in the backward pass. The last steps keep theirs: they come first in the backward
pass, so all of their memory is free again before an earlier step needs room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

GIB = 2**30
Part = tuple[Callable[[Tensor], Tensor], int]  # a map of the trajectory, and how often it is applied


class Memory:
    """A budget for the activations that the exact gradient holds in one pass. No plan changes a number.

    Args:
        gib: the budget in GiB; null keeps every step. The step that is being recomputed has to fit in any case, so 0 is
            one step at a time.
    """

    def __init__(self, gib: float | None = None) -> None:
        if gib is not None and not gib >= 0:
            raise ValueError(f"prior.memory={gib} is negative: use null to keep every step, 0 for one step at a time")
        self.gib = gib
        self.measured: dict[Any, list[int]] = {}

    def unmeasured(self) -> Memory:
        """The same budget for another purifier, nothing measured yet."""
        return Memory(self.gib)

    def plan(self, x: Tensor, parts: Sequence[Part], owner: nn.Module) -> list[int]:
        """How many applications of each part, the last ones, keep their graph.

        Args:
            x: an input of the first part; every part takes one of its shape.
            parts: in the order of the trajectory. The last gets of the budget first; one before it, only if all of it is kept.
            owner: holds the weights, which lie in memory anyway.
        """
        if self.gib is None or not needs_gradient(x):
            return [count for _, count in parts]
        if self.gib == 0:
            return [0 for _ in parts]
        key = (x.shape, x.dtype, x.device, len(parts))
        if key not in self.measured:
            weights = [*owner.parameters(), *owner.buffers()]
            self.measured[key] = [held(function, x, weights) for function, _ in parts]
        state = x.nelement() * x.element_size()
        left = self.gib * GIB - state * sum(count for _, count in parts)  # the inputs of recomputed steps
        plan: list[int] = []
        for (_, count), size in zip(reversed(parts), reversed(self.measured[key]), strict=True):
            kept = min(count, max(0, int(left // max(size, 1))))
            # What stands before a recomputed application waits for its turn: both would be held at once.
            left = left - kept * size if kept == count else 0
            plan.insert(0, kept)
        return plan


def needs_gradient(x: Tensor) -> bool:
    """Whether autograd follows what is done with x."""
    return torch.is_grad_enabled() and x.requires_grad


def held(function: Callable[[Tensor], Tensor], x: Tensor, weights: Iterable[Tensor] = ()) -> int:
    """Bytes that autograd holds between forward and backward pass of function(x), `weights` left out.

    Storages are counted once, and whole. The call is made with a copy of x.
    """
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    sizes: dict[int, int] = {}
    saved: list[Tensor] = []  # keeps freed memory from being used, and counted, twice

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(x.detach().clone().requires_grad_(True))
    return sum(sizes.values())


def recomputed(function: Callable[..., Tensor], x: Tensor, *rest: object, captured: Sequence[Tensor] = ()) -> Tensor:
    """function(x, ...) that holds only x for the backward pass, where a gradient is asked for at all.

    Args:
        function: gives the same again when it is called again: its noise is keyed.
        captured: the other tensors with a gradient that the function looks at, as a guidance may: what is not listed
            counts as constant.
    """
    if not needs_gradient(x):
        return function(x, *rest)
    return _Recomputed.apply(lambda z: function(z, *rest), x, *captured)


class _Recomputed(torch.autograd.Function):
    """A map whose first pass builds no graph at all.

    torch's checkpoint builds one and drops it, and would run the network a third time where a guidance takes a gradient
    inside the step.
    """

    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor], Tensor], x: Tensor, *captured: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(x, *captured)
        return function(x.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *captured = ctx.saved_tensors
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            y = ctx.function(x)
        if not y.requires_grad:  # a map that grants no gradient
            return None, None, *(None for _ in captured)
        asked = [x, *(c for c in captured if c.requires_grad)]
        found = iter(torch.autograd.grad(y, asked, gradient, allow_unused=True))
        return None, next(found), *(next(found) if c.requires_grad else None for c in captured)
