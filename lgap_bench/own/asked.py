"""What somebody's function is, found out by asking: whether it draws, whether it has a gradient, and what identifies it."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.evaluation.contract import call
from lgap_bench.own.borrowed import modules_of
from lgap_bench.own.wrapped import Function, answer
from lgap_bench.runtime import generators

IMAGES = 8  # it is asked about
SEEDS = (11, 12)
CLOSE = 1e-6  # of the largest value: what a GPU's sums may differ by when a pass is repeated


@dataclass(frozen=True)
class Asked:
    """What was found out.

    Attributes:
        randomized: whether its answer depends on a global random generator.
        differentiable: whether its answer has a gradient at the image.
        sha256: of its answers, its gradient, its weights and its code.
        shape: of one answer, without the batch.
    """

    randomized: bool
    differentiable: bool
    sha256: str
    shape: tuple[int, ...]


def ask(part: str, function: Function, x: Tensor, form: str) -> Asked:
    """Ask a function about a few images (B, C, H, W); `part` and `form` are for errors: who it is, what it has to be.

    Raises ValueError in one line if it raises, returns no tensor of one row per image, or draws from a generator that no
    global seed reaches: such a defense could not be measured twice.
    """
    few = x[:IMAGES]
    with torch.no_grad():
        first, again, other = (_answered(part, function, few, seed, form) for seed in (SEEDS[0], *SEEDS))
    if not isinstance(first, Tensor) or not first.is_floating_point() or len(first) != len(few):
        found = f"{first.dtype} {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(f"{part} returns {found} for {len(few)} images: {form}, floating point, one row per image")
    if _differ(first, again):
        raise ValueError(
            f"{part} answers differently under the same seeds of torch, numpy and random: let it draw from one of these generators, and keep no state between calls"
        )
    gradient = _gradient(part, function, few[:1], form)
    digest = hashlib.sha256()
    for tensor in (first, *([] if gradient is None else [gradient]), *_weights(function)):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + _bytes(tensor))
    digest.update(_code(function).encode())
    return Asked(_differ(first, other), gradient is not None, digest.hexdigest(), tuple(first.shape[1:]))


def _answered(part: str, function: Function, x: Tensor, seed: int, form: str) -> Any:
    with generators.seeded(seed):
        return call(part, lambda: answer(function, x.clone()), form)


def _gradient(part: str, function: Function, x: Tensor, form: str) -> Tensor | None:
    """Of the answer's sum of squares at one image; None where autograd finds no way back to it."""
    with torch.enable_grad(), generators.seeded(SEEDS[0]):
        at = x.clone().requires_grad_(True)
        found = call(part, lambda: answer(function, at), form)
        if not found.requires_grad:
            return None
        (gradient,) = call(part, lambda: torch.autograd.grad(found.square().sum(), at, allow_unused=True), form)
    return gradient


def _differ(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return True
    exact = a.device.type == "cpu"
    return bool((a - b).abs().max() > (0.0 if exact else CLOSE * float(a.abs().max())))


def _weights(function: Function) -> list[Tensor]:
    """The parameters and buffers of what it is made of, in the order of their names."""
    states = (sorted(module.state_dict().items()) for module in modules_of(function))
    return [tensor for state in states for _, tensor in state if isinstance(tensor, Tensor)]


def _code(function: Function) -> str:
    """Its structure, and the source of its own class or function where Python still has it."""
    own = function if inspect.isroutine(function) else type(function)
    try:
        source = inspect.getsource(own)
    except (OSError, TypeError):  # built in, or typed at a prompt
        source = ""
    return f"{own.__module__}.{own.__qualname__}\n{repr(function) if isinstance(function, nn.Module) else ''}\n{source}"


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
