"""Gradient checkpointing within a memory budget: which steps of a purification keep their graph.

A step that keeps its graph holds the activations of every layer until its backward pass. A recomputed step holds only its
input, and runs a second time in the backward pass. The last steps of a trajectory are the ones to keep: the backward pass
begins with them, so their memory is free again before an earlier step is recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

GIB = 2**30
Part = tuple[Callable[[Tensor], Tensor], int]  # a part of the trajectory, e.g. one step, and how often it is applied


class Memory:
    """A budget for the activations that the exact gradient holds in one pass. It trades time for memory, never a number.

    Args:
        gib: the budget in GiB; null keeps every step. 0 keeps none: one step at a time is recomputed, which has to fit.

    Attributes:
        measured: bytes that one application of each part holds, by shape, dtype, device and number of parts.
    """

    def __init__(self, gib: float | None = None) -> None:
        if gib is not None and not gib >= 0:
            raise ValueError(f"prior.memory={gib} is negative: use null to keep every step, 0 for one step at a time")
        self.gib = gib
        self.measured: dict[Any, list[int]] = {}  # measured once, since a measurement costs a forward pass

    def unmeasured(self) -> Memory:
        """The same budget for another purifier, whose steps may hold another amount."""
        return Memory(self.gib)

    def plan(self, x: Tensor, parts: Sequence[Part], owner: nn.Module, captured: Sequence[Tensor] = ()) -> list[int]:
        """How many applications of each part, counted from its end, keep their graph.

        Args:
            x: an input of the first part; every part takes one of its shape.
            parts: in the order of the trajectory. The budget goes to the last part first. An earlier part gets some of it
                only if every application of the later ones is kept.
            owner: the module whose weights are left out of the count, since they lie in memory anyway.
            captured: further tensors that the parts use, which may be all that has a gradient.
        """
        if self.gib is None or not any(needs_gradient(each) for each in (x, *captured)):
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
            # Before a recomputed step nothing may be kept: its activations would be there while that step is recomputed.
            left = left - kept * size if kept == count else 0
            plan.insert(0, kept)
        return plan


def needs_gradient(x: Tensor) -> bool:
    """Whether autograd follows what is done with x."""
    return torch.is_grad_enabled() and x.requires_grad


def held(function: Callable[[Tensor], Tensor], x: Tensor, weights: Iterable[Tensor] = ()) -> int:
    """Bytes that autograd holds between the forward and the backward pass of function(x), without the `weights`.

    Each storage is counted once and in full, since a view of it keeps all of it alive. Calls `function` on a copy of x.
    """
    known = {address(weight) for weight in weights}
    sizes: dict[int, int] = {}
    saved: list[Tensor] = []  # keeps tensors alive: an address that is used again would be counted once for two

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        if (place := address(tensor)) not in known:
            sizes[place] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(x.detach().clone().requires_grad_(True))
    return sum(sizes.values())


def address(tensor: Tensor) -> int:
    """What tells storages apart; those on torch's `meta` device have no data to point to."""
    storage = tensor.untyped_storage()
    return storage.data_ptr() or int(storage._cdata)


def recomputed(function: Callable[..., Tensor], x: Tensor, *rest: object, captured: Sequence[Tensor] = ()) -> Tensor:
    """function(x, *rest), computed again in the backward pass; only x and `captured` are held until then.

    Args:
        function: has to return the same when it is called again, as keyed noise makes sure.
        captured: further tensors that the function uses and that have a gradient, such as the input that a guidance looks
            at. A tensor that is not listed counts as constant.
    """
    if not any(needs_gradient(each) for each in (x, *captured)):
        return function(x, *rest)
    return _Recomputed.apply(lambda z: function(z, *rest), x, *captured)


class _Recomputed(torch.autograd.Function):
    """A function whose forward pass builds no graph, and whose backward pass runs it again with one.

    torch.utils.checkpoint is not used: it builds a graph and drops it, and it would run the network a third time where a
    guidance takes a gradient inside the step.
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
        inputs = [x, *(c for c in captured if c.requires_grad)]
        found = iter(torch.autograd.grad(y, inputs, gradient, allow_unused=True))
        return None, next(found), *(next(found) if c.requires_grad else None for c in captured)
