"""Subsets by rule: images chosen by what is annotated in them and a seed, where indices cannot be listed. Without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEEDS = 2**32  # numpy's legacy generator takes seeds below
LEAST = {"classes": 1, "images": 1, "distinct": 1, "seed": 0}


@dataclass(frozen=True)
class Rule:
    """Which images: the same on every machine with the same annotations.

    Attributes:
        name: what records call it.
        classes: the most frequent classes of the split, by images that hold them; in no image is another class.
        images: how many.
        distinct: classes that an image holds at least.
        seed: of the order in which images are looked at.
        sha256: of the chosen ids, or null where it was not computed yet: then nothing is checked.
    """

    name: str
    classes: int
    images: int
    distinct: int = 1
    seed: int = 0
    sha256: str | None = None


def parse(subset: Mapping[str, Any]) -> Rule:
    """A subset's YAML as a rule. Raises ValueError for keys that are missing or unknown and for numbers out of range."""
    known = {field.name for field in fields(Rule)}
    strange, missing = sorted(set(subset) - known), sorted({"name", "classes", "images"} - set(subset))
    if strange or missing:
        what = f"{strange[0]} is not known" if strange else f"{missing[0]} is missing"
        raise ValueError(f"dataset.subset: {what}: write {', '.join(field.name for field in fields(Rule))}")
    made = Rule(**subset)
    for key, least in LEAST.items():
        value = getattr(made, key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < SEEDS:
            raise ValueError(f"dataset.subset.{key}={value} is no whole number from {least} on: see conf/subset/")
    return made


def chosen(made: Rule, ids: NDArray[np.int64], present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows of a split's images, in the order of a seeded shuffle, so that the first n are a random draw of them.

    Args:
        ids: (N,) ascending; the shuffle is of their places, so the order of the annotations' file is without effect.
        present: (N, classes) which classes are in each image.
    Of every class, the rarest first, one image is taken if none that was taken holds it; the shuffle fills the rest. So
    all classes occur unless no allowed image holds one or there are fewer images than it takes.
    Raises ValueError if there are fewer images or classes than asked for, and if the hash of the chosen ids is another.
    """
    counts = present.sum(0)
    if made.classes > (counts > 0).sum():
        raise ValueError(
            f"dataset.subset {made.name}: {made.classes} classes are asked for, and the images hold {(counts > 0).sum()}: "
            "lower dataset.subset.classes"
        )
    frequent = np.argsort(-counts, kind="stable")[: made.classes]
    others = np.setdiff1d(np.arange(len(counts)), frequent)
    allowed = ~present[:, others].any(1) & (present.sum(1) >= made.distinct)
    order = np.random.RandomState(made.seed).permutation(len(ids))
    queue = order[allowed[order]]
    if len(queue) < made.images:
        raise ValueError(
            f"dataset.subset {made.name}: {made.images} images are asked for, and {len(queue)} of {len(ids)} hold at least "
            f"{made.distinct} classes and none but the {made.classes} most frequent: lower dataset.subset.images"
        )
    rows = _covering(queue, present, frequent[::-1], made.images)
    _check_hash(made, digest(ids[rows]))
    return rows


def digest(ids: NDArray[np.int64]) -> str:
    """SHA-256 of ids, in their order, as little-endian int64."""
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()


def _covering(
    queue: NDArray[np.int64], present: NDArray[np.bool_], rarest: NDArray[np.int64], images: int
) -> NDArray[np.int64]:
    """`images` of the queue, in its order: one per class as far as there is one and room, then the first ones."""
    taken = np.zeros(len(queue), bool)
    for label in rarest:
        holding = present[queue, label]
        if taken.sum() < images and holding.any() and not (holding & taken).any():
            taken[holding.argmax()] = True
    taken[np.flatnonzero(~taken)[: images - taken.sum()]] = True
    return queue[taken]


def _check_hash(made: Rule, found: str) -> None:
    if made.sha256 is not None and found != made.sha256:
        raise ValueError(
            f"dataset.subset {made.name}: SHA-256 of its ids is {found}, not {made.sha256}: read the official annotations, "
            "or give the new subset a name and a hash of its own"
        )
