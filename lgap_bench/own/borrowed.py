"""Somebody's module while it is evaluated: in eval mode, frozen, on the device; afterwards as it was."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def borrowed(parts: Sequence[Any], device: str) -> Iterator[None]:
    """Modules among the parts, put back in the end: their modes, what is trained, their device and type."""
    modules = [module for part in parts for module in modules_of(part)]
    modes = [(each, each.training) for module in modules for each in module.modules()]
    trained = [(each, each.requires_grad) for module in modules for each in module.parameters()]
    homes = [(module, *_home(module)) for module in modules]
    try:
        for module in modules:
            module.eval().requires_grad_(False).to(device)
        yield
    finally:
        for each, mode in modes:
            each.training = mode
        for parameter, wanted in trained:
            parameter.requires_grad_(wanted)
        for module, home, dtype in homes:
            if home is not None:
                module.to(device=home, dtype=dtype)


@contextmanager
def online() -> Iterator[None]:
    """A cell tells the hub's libraries to stay offline, for its whole process: here that is somebody else's, and is undone.

    They look at the environment when they are imported, so that is done before.
    """
    import huggingface_hub.constants as _read_now  # noqa: F401

    held = os.environ.get("HF_HUB_OFFLINE")
    try:
        yield
    finally:
        if held is None:
            os.environ.pop("HF_HUB_OFFLINE", None)


def precision(parts: Sequence[Any]) -> str:
    """The type of the first module's weights, by its name: what it is evaluated in. float32 where there are none."""
    for module in (each for part in parts for each in modules_of(part)):
        dtype = _home(module)[1]
        if dtype is not None:
            return str(dtype).removeprefix("torch.")
    return "float32"


def modules_of(part: Any) -> list[nn.Module]:
    """The module that a part is, or those that a function reaches: by its closure, its globals, as its own object."""
    if isinstance(part, nn.Module):
        return [part]
    if isinstance(part, functools.partial):
        return [each for held in (part.func, *part.args, *part.keywords.values()) for each in modules_of(held)]
    found = [getattr(part, "__self__", None)]
    if inspect.isfunction(part):
        closure = inspect.getclosurevars(part)
        found += [*closure.nonlocals.values(), *closure.globals.values()]
    return [each for each in found if isinstance(each, nn.Module)]


def _home(module: nn.Module) -> tuple[torch.device | None, torch.dtype | None]:
    first = next((each for each in module.parameters() if each.is_floating_point()), None)
    return (None, None) if first is None else (first.device, first.dtype)
