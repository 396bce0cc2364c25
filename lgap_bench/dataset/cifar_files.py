"""CIFAR-10 and CIFAR-100 from other files than the official batches: the hub's parquet, .npz, a folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lgap_bench.dataset.folder import Fit
from lgap_bench.dataset.images import ImageFiles
from lgap_bench.dataset.listing import listed, numbered, require_same_order
from lgap_bench.dataset.npz import Stored, read_npz
from lgap_bench.dataset.parquet import read_parquet

KEY = "dataset.files"
WHOLE = {"train": 50_000, "test": 10_000}  # official images; validation is cut out of the training images
LABELS = {10: ("label", "labels"), 100: ("fine_label",)}
SHAPE = (3, 32, 32)


def stored(files: str, part: str, kind: int, classes: Sequence[str]) -> tuple[Stored, bool]:
    """The official `train` or `test` part of a CIFAR in `files`, and whether its index is the official one.

    `files` is one file, or a folder: its .npz or .parquet files whose names begin with the part's, also one folder below
    (`plain_text/test-00000-of-00001.parquet`), or `<part>/<class>/*`. Official indices are those of the file, or the rows'
    places where the part is whole. Class folders know none: their index is the place in sorted order.
    Raises ValueError for files that are not there, have other classes, another size, or no index.
    """
    place = Path(files).expanduser()
    if not place.exists():
        raise ValueError(
            f"{KEY}={files} does not exist: give a folder or file of images, or null for the official batches"
        )
    npz, parquet = (_found(place, part, suffix) for suffix in (".npz", ".parquet"))
    if len(npz) > 1 or (npz and parquet):
        raise ValueError(f"{KEY}={files} holds {npz[0].name} and {(npz[1:] + parquet)[0].name}: name one of them")
    if not npz and not parquet:
        return _folders(place, part, classes), False
    held = read_npz(str(npz[0]), KEY) if npz else read_parquet(parquet, LABELS[kind], KEY)
    what = f"{KEY}={(npz + parquet)[0]}"
    if tuple(held.images.shape[1:]) != SHAPE:
        raise ValueError(
            f"{what}: images are {tuple(held.images.shape[1:])} and not {SHAPE}: give CIFAR's own, not resized"
        )
    if held.classes is not None:
        require_same_order(classes, held.classes, what)
    return Stored(held.images, held.labels, _official(held, part, what), held.classes), True


def _found(place: Path, part: str, suffix: str) -> list[Path]:
    """One file, or a folder's files of a part, those one folder below it included."""
    if place.is_file():
        return [place] if place.suffix == suffix else []
    return sorted([*place.glob(f"{part}*{suffix}"), *place.glob(f"*/{part}*{suffix}")])


def _official(held: Stored, part: str, what: str) -> NDArray[np.int64]:
    if held.index is None:
        if len(held.labels) != WHOLE[part]:
            raise ValueError(
                f"{what} holds {len(held.labels)} of {WHOLE[part]} images and no index: add `index`, each image's place in the official order"
            )
        return np.arange(WHOLE[part])
    strange = held.index[(held.index < 0) | (held.index >= WHOLE[part])]
    if len(strange):
        raise ValueError(f"{what}: index {int(strange[0])} is not in [0, {WHOLE[part] - 1}]: give the official one")
    return held.index


def _folders(place: Path, part: str, classes: Sequence[str]) -> Stored:
    root = place / part if (place / part).is_dir() else place
    if place.is_file() or root.name != part:
        raise ValueError(
            f"{KEY}={place} holds no {part}*.parquet, no {part}*.npz and no folder {part}: give the hub's files, an .npz, or {part}/<class>/*.png"
        )
    listing = listed(str(root), key=KEY)
    labels, _ = numbered(listing, classes)
    images = ImageFiles(listing.files, Fit(None, None), SHAPE)
    return Stored(images, np.asarray(labels), np.arange(len(labels)))
