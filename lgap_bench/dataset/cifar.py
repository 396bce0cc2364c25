"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the official batches, MD5-checked by torchvision, or other files of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgap_bench.dataset import cifar_files
from lgap_bench.dataset.base import DataSet, Split
from lgap_bench.dataset.images import Images, rows_of
from lgap_bench.dataset.subset import TEST_IMAGES, entries, sample_ids
from lgap_bench.runtime.choices import require_choice

Index = NDArray[np.int64]  # official places of images
HELD_OUT = 5_000  # training images set aside for validation: the best epoch is chosen on them
TEST_IDS = 50_000  # ids count on from the training images, so that no test image shares a training image's noise


def cifar(
    root: str,
    classes: Sequence[str],
    caption: str = "a photo of a {label}",
    split: Split = "test",
    kind: int = 10,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    unrelated: str | None = None,
    subset: Mapping[str, Any] | None = None,
    files: str | None = None,
) -> DataSet:
    """One split, (n, 3, 32, 32) in [0, 1].

    Args:
        root: folder that holds `cifar-10-batches-py` or `cifar-100-python`.
        split: `train` (45,000), `validation` (5,000 of the official training images, by a fixed shuffle) or `test`
            (10,000, official order).
        kind: 10 or 100 (fine labels).
        subset: name, seeds, each and sha256 of `subset.entries`: some of the test images in a paper's order; `train` and
            `validation` are what they are without it. An image that the subset holds twice is two samples with two ids.
        files: the hub's parquet files, an .npz or class folders instead of the official batches, see `cifar_files.stored`;
            they may hold a part of the images, which are then what there is of the split.
    Raises ValueError if the files are not there or not the official ones.
    """
    wanted = indices(split) if split != "test" or subset is None else entries(**subset)
    if files is None:
        images, labels, index = _official(root, kind, split, wanted)
    else:
        images, labels, index = _other(files, kind, split, wanted, classes, subset)
    ids = torch.from_numpy(TEST_IDS + sample_ids(index) if split == "test" else index)
    return DataSet(f"cifar{kind}", split, images, labels, ids, tuple(classes), caption, synonyms or {}, unrelated)


def _official(root: str, kind: int, split: Split, wanted: Index) -> tuple[Images, Tensor, Index]:
    from torchvision.datasets import CIFAR10, CIFAR100

    source = {10: CIFAR10, 100: CIFAR100}[kind]
    try:
        data = source(root, train=split != "test", download=False)
    except RuntimeError as error:
        raise ValueError(
            f"dataset.root={root}: no whole {source.base_folder} in {Path(root).resolve()} ({str(error).split('.')[0]}): "
            f"download and unpack {source.filename} there"
        ) from None
    images = torch.from_numpy(data.data[wanted]).permute(0, 3, 1, 2).float().div(255).contiguous()
    return images, torch.tensor(data.targets)[wanted], wanted


def _other(
    files: str, kind: int, split: Split, wanted: Index, classes: Sequence[str], subset: Mapping[str, Any] | None
) -> tuple[Images, Tensor, Index]:
    """Those of the wanted images that the files hold, in the wanted order; of a subset all or an error.

    Class folders are not in the official order: their test images are shuffled once, so that the first n are no one class.
    """
    held, official = cifar_files.stored(files, "test" if split == "test" else "train", kind, classes)
    assert held.index is not None
    if not official and subset is not None:
        raise ValueError(
            f"dataset.files={files}: class folders do not say which official image a file is, so a subset cannot be taken from them: use subset=none"
        )
    if not official and split == "test":
        wanted = np.random.RandomState(0).permutation(len(held.labels))
    place = {int(number): row for row, number in enumerate(held.index)}
    lacking = [int(number) for number in wanted if int(number) not in place]
    if lacking and subset is not None:
        raise ValueError(
            f"dataset.files={files} lacks test image {lacking[0]}, {len(lacking)} of the {len(wanted)} of subset {subset['name']}: give all of them, or use subset=none"
        )
    index = np.array([number for number in wanted if int(number) in place], dtype=np.int64)
    rows = np.array([place[int(number)] for number in index], dtype=np.int64)
    return rows_of(held.images, rows), torch.from_numpy(held.labels[rows]), index


def indices(split: Split) -> np.ndarray:
    """Official indices of a split."""
    require_choice("dataset.split", split, Split)
    if split == "test":
        return np.arange(TEST_IMAGES)
    shuffled = np.random.RandomState(0).permutation(50_000)
    return shuffled[:HELD_OUT] if split == "validation" else shuffled[HELD_OUT:]
