"""ImageNet's validation images (Russakovsky et al. 2015) from a folder per class, a fixed subset of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from lgap_bench.dataset.base import DataSet
from lgap_bench.dataset.images import ImageFiles, class_folders
from lgap_bench.runtime.text import read_lines


def imagenet(
    root: str,
    file: str,
    caption: str = "a photo of a {label}",
    split: Literal["test"] = "test",
    subset: int = 2048,
    data_seed: int = 0,
    resize: int = 256,
    crop: int = 224,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    unrelated: str | None = None,
) -> DataSet:
    """`subset` images of `root/<synset>/*`, short side resized to `resize` (bilinear), centre crop, in [0, 1].

    Args:
        root: folder with one folder per class; classes are numbered by their folders' sorted names (torchvision's order).
        file: a text file with the classes' words, one line per class.
        subset, data_seed: LGAP evaluates 2,048 images and does not say which; these are one draw without replacement from
            all files in sorted order.
    Files are read when their rows are asked for, so a cell of n images reads n of them (see `images.read_rgb`).
    The validation images have no training split here: LGAP does not fine-tune on ImageNet.
    """
    from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

    if split != "test":
        raise ValueError(f"dataset.split={split}: only the validation images, split=test, are known of ImageNet")
    folders = class_folders(Path(root).expanduser(), "dataset.root")
    files = [(file, k) for k, (_, held) in enumerate(folders) for file in held]
    if len(files) < subset:
        raise ValueError(
            f"dataset.root={root}: {len(files)} images in {len(folders)} class folders, and dataset.subset={subset}: "
            "unpack the validation images there, one folder per class"
        )
    words = read_lines(file, "dataset.file")
    if len(words) != len(folders):
        raise ValueError(
            f"dataset.file={file} has {len(words)} lines, and {root} {len(folders)} class folders: one per folder"
        )
    chosen = np.random.RandomState(data_seed).choice(len(files), subset, replace=False)
    transform = Compose([Resize(resize), CenterCrop(crop), ToTensor()])
    images = ImageFiles(tuple(files[place][0] for place in chosen), transform, (3, crop, crop))
    ids = torch.from_numpy(chosen)
    labels = torch.tensor([files[place][1] for place in chosen])
    return DataSet("imagenet", split, images, labels, ids, tuple(words), caption, synonyms or {}, unrelated)
