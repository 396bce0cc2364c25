"""The miniature's data: 5,000 real MNIST digits that travel with the package, so nothing is downloaded.

Images: LeCun and Cortes, CC BY-SA 3.0; 500 per class, 28x28, here padded to 32x32 and repeated to RGB. Where the file comes
from stands beside it, in mnist_5k.md.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lgap_bench.dataset.base import DataSet, Split
from lgap_bench.runtime.choices import require_choice

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STROKES = ("thin", "medium", "bold")
FILE = Path(__file__).with_name("mnist_5k.npz")
SPLITS = {"train": 3500, "validation": 500, "test": 1000}
# Ink (mean pixel) terciles of the 3,500 training images; constants, so that a caption never depends on a batch.
INK_TERCILES = (0.0837, 0.1118)


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    """All 5,000 images as uint8 (5000, 28, 28) and their labels, in the file's order."""
    with np.load(FILE) as held:
        return held["images"], held["labels"].astype(np.int64)


def split_indices(split: Split) -> np.ndarray:
    """The fixed split: per class the same shuffle (seed 0) is cut into 70 / 10 / 20 %, then interleaved by a shuffle.

    Any first n of a split is therefore a random draw over classes, the same on every machine.
    """
    require_choice("dataset.split", split, Split)
    _, labels = _load()
    generator = np.random.RandomState(0)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    for label in range(10):
        members = generator.permutation(np.flatnonzero(labels == label))
        for name, part in zip(SPLITS, np.split(members, [350, 400]), strict=True):
            parts[name].append(part)
    shuffled = {name: generator.permutation(np.concatenate(parts[name])) for name in SPLITS}
    return shuffled[split]


def digits(
    split: Split = "test",
    classes: tuple[str, ...] = CLASSES,
    caption: str = "a photo of a handwritten {label}",
    synonyms: Mapping[str, Sequence[str]] | None = None,
    unrelated: str | None = None,
) -> DataSet:
    """One split of the digits, (n, 3, 32, 32) in [0, 1]."""
    indices = split_indices(split)
    images, labels = _load()
    padded = np.pad(images[indices], ((0, 0), (2, 2), (2, 2)))
    pixels = torch.from_numpy(padded).float().div(255)[:, None].expand(-1, 3, -1, -1).contiguous()
    targets, ids = torch.from_numpy(labels[indices]), torch.from_numpy(indices)
    return DataSet("digits", split, pixels, targets, ids, tuple(classes), caption, synonyms or {}, unrelated)


def stroke_words(images: Tensor) -> list[str]:
    """`thin`, `medium` or `bold` for each image (B, 3, 32, 32) in [0, 1], by the training set's ink terciles."""
    ink = images.mean(dim=(1, 2, 3)).tolist()
    return [STROKES[sum(value > edge for edge in INK_TERCILES)] for value in ink]


def describe(images: Tensor, labels: Tensor) -> list[str]:
    """The full training captions, e.g. `a photo of a handwritten seven in thin strokes`."""
    words = stroke_words(images)
    return [
        f"a photo of a handwritten {CLASSES[label]} in {stroke} strokes"
        for label, stroke in zip(labels.tolist(), words, strict=True)
    ]
