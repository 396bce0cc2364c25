"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the official Python batches, read and MD5-checked by torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lgap_bench.dataset.base import DataSet, Split
from lgap_bench.dataset.subset import TEST_IMAGES, entries, sample_ids
from lgap_bench.runtime.choices import require_choice

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
) -> DataSet:
    """One split, (n, 3, 32, 32) in [0, 1].

    Args:
        root: folder that holds `cifar-10-batches-py` or `cifar-100-python`.
        split: `train` (45,000), `validation` (5,000 of the official training images, by a fixed shuffle) or `test`
            (10,000, official order).
        kind: 10 or 100 (fine labels).
        subset: name, seeds, each and sha256 of `subset.entries`: some of the test images in a paper's order; `train` and
            `validation` are what they are without it. An image that the subset holds twice is two samples with two ids.
    Raises ValueError if the files are not there or not the official ones.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    source = {10: CIFAR10, 100: CIFAR100}[kind]
    try:
        data = source(root, train=split != "test", download=False)
    except RuntimeError as error:
        raise ValueError(
            f"dataset.root={root}: no whole {source.base_folder} in {Path(root).resolve()} ({str(error).split('.')[0]}): "
            f"download and unpack {source.filename} there"
        ) from None
    index = indices(split)
    if split == "test" and subset is not None:
        index = entries(**subset)
    images = torch.from_numpy(data.data[index]).permute(0, 3, 1, 2).float().div(255).contiguous()
    labels = torch.tensor(data.targets)[index]
    ids = torch.from_numpy(TEST_IDS + sample_ids(index) if split == "test" else index)
    return DataSet(f"cifar{kind}", split, images, labels, ids, tuple(classes), caption, synonyms or {}, unrelated)


def indices(split: Split) -> np.ndarray:
    """Official indices of a split."""
    require_choice("dataset.split", split, Split)
    if split == "test":
        return np.arange(TEST_IMAGES)
    shuffled = np.random.RandomState(0).permutation(50_000)
    return shuffled[:HELD_OUT] if split == "validation" else shuffled[HELD_OUT:]
