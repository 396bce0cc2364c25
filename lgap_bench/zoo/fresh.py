"""Training scenes that never repeat: the training digits in other handwriting, composed anew at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lgap_bench.dataset.base import Objects
from lgap_bench.dataset.digits import CLASSES, digits
from lgap_bench.dataset.scenes import COUNTS, SIDE, Glyph, annotate, captions, compose, glyphs, paint, presence
from lgap_bench.zoo.fit import warp

HANDS = 4  # how often each digit is in the pool: once as it is, else warped
FAINT = 0.06  # what interpolation leaves below this is no ink: boxes would grow by it


@dataclass(frozen=True)
class Scenes:
    """A batch: images (B, 3, 48, 48) in [0, 1], classes (B, 10) bool, a caption and the objects of each."""

    images: Tensor
    present: Tensor
    captions: list[str]
    objects: list[Objects]


def pool() -> list[Glyph]:
    """The 3,500 training digits, cut out, as they are and rotated, scaled and sheared a little."""
    data = digits("train")
    made = glyphs(data.images[:], data.labels)
    for seed in range(1, HANDS):
        warped = warp(data.images[:], torch.Generator().manual_seed(seed))
        made += glyphs(warped.masked_fill(warped < FAINT, 0), data.labels)
    return made


def fresh(
    digits: Sequence[Glyph], generator: torch.Generator, count: int = 64, counts: Sequence[int] = COUNTS
) -> Scenes:
    """`count` scenes of these digits; the generator alone decides which."""
    draw = np.random.RandomState(int(torch.randint(2**31, (1,), generator=generator)))
    made = [compose(digits, draw, counts) for _ in range(count)]
    present = presence(made)
    return Scenes(paint(made), present, captions(present), [annotate(scene) for scene in made])


def inked(objects: Objects, side: int) -> Tensor:
    """Which classes have ink in each of side x side patches, (patches, 10) float of 0 and 1, row by row."""
    assert objects.masks is not None
    parts = F.max_pool2d(objects.masks.float(), SIDE // side).flatten(1)
    out = torch.zeros(len(CLASSES), side**2)
    for label, part in zip(objects.labels.tolist(), parts, strict=True):
        out[label] = out[label].maximum(part)
    return out.T
