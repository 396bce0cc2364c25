"""The miniature of several objects per image: one to four MNIST digits on a black canvas, composed by a fixed seed.

The digits are those of `dataset.digits` (CC BY-SA 3.0); scenes of a split are made of that split's digits alone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgap_bench.dataset.base import DataSet, Objects, Split
from lgap_bench.dataset.digits import CLASSES, digits
from lgap_bench.dataset.words import sentence
from lgap_bench.runtime.choices import require_choice
from lgap_bench.task.multi_label import MULTI_LABEL, first

SIDE = 48  # four digits of 20 x 20 at most fit, and do not always
STEP = 8  # left and top edges lie on this grid: at any pixel, tiny vision transformers train ten times as long
SIZES = {"train": 6000, "validation": 400, "test": 1000}
SEEDS = {"train": 1, "validation": 2, "test": 3}
COUNTS = (1, 2, 2, 3, 3, 4, 4, 4)  # objects of a scene, each entry as likely as the next
CROWDED = 0.35  # share of scenes whose boxes may overlap; in the others they do where there is no room
OVERLAP = 0.35  # by how much of the smaller box
TRIES = 12  # places looked at for one object before the least overlapping is taken

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom lie outside


@dataclass(frozen=True)
class Glyph:
    """One digit cut to its ink: `ink` (h, w) float32 in [0, 1], and its class."""

    ink: NDArray[np.float32]
    label: int


@dataclass(frozen=True)
class Placed:
    """A glyph and the box of its ink on the canvas."""

    glyph: Glyph
    box: Box


def glyphs(images: Tensor, labels: Tensor) -> list[Glyph]:
    """Digits (n, 3, h, w) in [0, 1] cut to their ink, at their own scale."""
    cut = []
    for image, label in zip(images[:, 0].numpy(), labels.tolist(), strict=True):
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        cut.append(Glyph(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], label))
    return cut


def compose(pool: Sequence[Glyph], draw: np.random.RandomState, counts: Sequence[int] = COUNTS) -> list[Placed]:
    """One scene: how many, which, and where. Legacy numpy draws, which are the same in every version."""
    count = counts[draw.randint(len(counts))]
    allowed = OVERLAP if draw.random_sample() < CROWDED else 0.0
    placed: list[Placed] = []
    for _ in range(count):
        glyph = pool[draw.randint(len(pool))]
        placed.append(Placed(glyph, _place(glyph, [other.box for other in placed], allowed, draw)))
    return placed


def _place(glyph: Glyph, taken: Sequence[Box], allowed: float, draw: np.random.RandomState) -> Box:
    """The first of a few random places that overlaps others no more than allowed, else the least overlapping."""
    height, width = glyph.ink.shape
    best, least = (0, 0, width, height), np.inf
    for _ in range(TRIES):
        left, top = (STEP * draw.randint((SIDE - edge) // STEP + 1) for edge in (width, height))
        box = (left, top, left + width, top + height)
        overlap = max((_overlap(box, other) for other in taken), default=0.0)
        if overlap < least:
            best, least = box, overlap
        if overlap <= allowed:
            break
    return best


def _overlap(a: Box, b: Box) -> float:
    """The boxes' intersection as a share of the smaller box."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def paint(scenes: Sequence[Sequence[Placed]]) -> Tensor:
    """The scenes as images (N, 3, 48, 48) float32 in [0, 1]: where digits overlap, the brighter pixel."""
    canvas = np.zeros((len(scenes), SIDE, SIDE), np.float32)
    for image, scene in zip(canvas, scenes, strict=True):
        for thing in scene:
            left, top, right, bottom = thing.box
            spot = image[top:bottom, left:right]
            np.maximum(spot, thing.glyph.ink, out=spot)
    return torch.from_numpy(canvas)[:, None].expand(-1, 3, -1, -1).contiguous()


def annotate(scene: Sequence[Placed]) -> Objects:
    """Labels, boxes as shares of the canvas, and each digit's own ink, whether another lies over it or not."""
    masks = np.zeros((len(scene), SIDE, SIDE), bool)
    for mask, thing in zip(masks, scene, strict=True):
        left, top, right, bottom = thing.box
        mask[top:bottom, left:right] = thing.glyph.ink > 0
    boxes = torch.tensor([thing.box for thing in scene], dtype=torch.float32).view(-1, 4) / SIDE
    return Objects(
        torch.tensor([thing.glyph.label for thing in scene], dtype=torch.int64), boxes, torch.from_numpy(masks)
    )


def presence(scenes: Sequence[Sequence[Placed]], classes: int = len(CLASSES)) -> Tensor:
    """Which classes are in each scene, (N, classes) bool."""
    present = torch.zeros(len(scenes), classes, dtype=torch.bool)
    for row, scene in zip(present, scenes, strict=True):
        row[[thing.glyph.label for thing in scene]] = True
    return present


def captions(present: Tensor, classes: Sequence[str] = CLASSES) -> list[str]:
    """The sentence of each scene's classes, in the order of the classes."""
    return [sentence([word for word, there in zip(classes, row, strict=True) if there]) for row in present.tolist()]


@functools.cache
def _composed(split: Split) -> tuple[tuple[Placed, ...], ...]:
    source = digits(split)
    pool = glyphs(source.images[:], source.labels)
    draw = np.random.RandomState(SEEDS[split])
    return tuple(tuple(compose(pool, draw)) for _ in range(SIZES[split]))


def scenes(
    split: Split = "test",
    classes: tuple[str, ...] = CLASSES,
    caption: str = "a photo of a {label}",
    synonyms: Mapping[str, Sequence[str]] | None = None,
    unrelated: str | None = None,
) -> DataSet:
    """One split of the scenes, (n, 3, 48, 48) in [0, 1], independent draws: any first n are a random sample.

    A label is the first class of those present. `caption` is that of one class (zero-shot prompts, targeted attacks);
    each scene's own caption names all of its classes.
    """
    require_choice("dataset.split", split, Split)
    composed = _composed(split)
    start = sum(SIZES[name] for name in list(SIZES)[: list(SIZES).index(split)])
    present = presence(composed, len(classes))
    return DataSet(
        "scenes",
        split,
        paint(composed),
        first(present),
        torch.arange(start, start + len(composed)),
        tuple(classes),
        caption,
        synonyms or {},
        unrelated,
        MULTI_LABEL,
        present,
        captions(present, classes),
        [annotate(scene) for scene in composed],
    )
