"""The global random generators of torch, numpy and Python: set for a while, and put back as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

State = tuple[Any, ...]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All of them at one seed inside, and afterwards as before."""
    held = state()
    try:
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        _restore(held)


def state() -> State:
    """Where they are."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), np.random.get_state(), random.getstate(), cuda


def same(a: State, b: State) -> bool:
    """Whether nothing was drawn between two states."""
    numpy = all(np.array_equal(left, right) for left, right in zip(a[1], b[1], strict=True))
    cuda = all(torch.equal(left, right) for left, right in zip(a[3], b[3], strict=True))
    return torch.equal(a[0], b[0]) and numpy and a[2] == b[2] and cuda


def _restore(held: State) -> None:
    torch.set_rng_state(held[0])
    np.random.set_state(held[1])
    random.setstate(held[2])
    if held[3]:
        torch.cuda.set_rng_state_all(held[3])
