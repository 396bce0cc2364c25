"""Modules and functions of others as the parts of a defense: their randomness becomes a function of each image's noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.noise import Noise, fresh
from lgap_bench.purifier.base import Purifier
from lgap_bench.runtime import generators

Function = Callable[[Tensor], Any]
FIXED = 0  # the seed where nobody brings noise: one draw, the same for every image


class OwnClassifier(nn.Module):
    """A callable from images in [0, 1] (B, C, H, W) to logits (B, K), or to an object that has `logits`.

    A randomized one is asked image by image, each under its own seed of torch's, numpy's and Python's generators: then
    an image's draw depends on its noise key alone, and neither on its neighbours nor on what was drawn before.
    """

    def __init__(self, function: Function, randomized: bool) -> None:
        super().__init__()
        self.function, self.randomized = function, randomized

    def forward(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """Logits; `noise` has one key per image."""
        return called(self.function, x, noise if self.randomized else None, self.randomized)


class OwnPurifier(Purifier):
    """A callable from images in [0, 1] to images of the same size; randomized ones as `OwnClassifier`'s."""

    def __init__(self, function: Function, randomized: bool) -> None:
        super().__init__()
        self.function, self.randomized = function, randomized

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """Purified images."""
        return called(self.function, x, noise if self.randomized else None, self.randomized)


class Plain(nn.Module):
    """One of this project's own purifiers as a callable that draws its noise from torch's global generator."""

    def __init__(self, purifier: Purifier) -> None:
        super().__init__()
        self.purifier = purifier

    def forward(self, x: Tensor) -> Tensor:
        """Purified images."""
        return self.purifier(x, fresh(len(x)))


def called(function: Function, x: Tensor, noise: Noise | None, randomized: bool) -> Tensor:
    """What a function makes of images: all at once, or one by one under each image's seed."""
    if not randomized:
        return answer(function, x)
    keys = [FIXED] * len(x) if noise is None else noise.keys
    rows = []
    for row, key in enumerate(keys):
        with generators.seeded(key):
            rows.append(answer(function, x[row : row + 1]))
    return torch.cat(rows)


def answer(function: Function, x: Tensor) -> Any:
    """What it returns; of an object with `logits` those."""
    found = function(x)
    return found if isinstance(found, Tensor) else getattr(found, "logits", found)
