"""ImageNet's validation images (Russakovsky et al. 2015), a fixed subset: a folder per class, or flat with a label file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from lgap_bench.dataset.base import DataSet
from lgap_bench.dataset.folder import Fit
from lgap_bench.dataset.images import ImageFiles
from lgap_bench.dataset.listing import Listing, by_synset, listed, synsets
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
    labels: str | None = None,
) -> DataSet:
    """`subset` images of `root/<synset>/*`, or of `root/*` with `labels`, short side resized to `resize` (bilinear), centre crop, in [0, 1].

    Args:
        root: folder with one folder per class, or with all images in it.
        file: a text file with the classes' words, one line per class in the order of the sorted synsets (torchvision's). Lines
            that begin with the synset (n01440764 tench, Tinca tinca) let `root` hold some of the classes alone.
        subset, data_seed: LGAP evaluates 2,048 images and does not say which; these are one draw without replacement from
            all files by class and name, so that both layouts give the same images and ids.
        labels: label file of a flat folder, see `listing.read_labels`: a class's number in that order, or its synset.
    Files are read when their rows are asked for, so a cell of n images reads n of them (see `images.read_rgb`).
    The validation images have no training split here: LGAP does not fine-tune on ImageNet.
    """
    if split != "test":
        raise ValueError(f"dataset.split={split}: only the validation images, split=test, are known of ImageNet")
    listing = listed(root, labels)
    words = read_lines(file, "dataset.file")
    numbers, names = _numbered(listing, words, root, file)
    files = sorted(zip(numbers, listing.files, strict=True), key=lambda pair: (pair[0], pair[1].name))
    if len(files) < subset:
        raise ValueError(
            f"dataset.root={root}: {len(files)} images in {len(set(numbers))} class folders, and dataset.subset={subset}: "
            "unpack the validation images there, one folder per class or with dataset.labels=file, or lower dataset.subset"
        )
    chosen = np.random.RandomState(data_seed).choice(len(files), subset, replace=False)
    images = ImageFiles(tuple(files[place][1] for place in chosen), Fit(resize, crop), (3, crop, crop))
    found = torch.tensor([files[place][0] for place in chosen])
    return DataSet(
        "imagenet", split, images, found, torch.from_numpy(chosen), names, caption, synonyms or {}, unrelated
    )


def _numbered(listing: Listing, words: Sequence[str], root: str, file: str) -> tuple[list[int], tuple[str, ...]]:
    """Labels (N,) and class names: by the lines' synsets, or by the order of the lines where they have none."""
    known = synsets(words, f"dataset.file={file}")
    if listing.numbers:
        names = tuple(words if known is None else known.values())
        return [int(word) for word in listing.words], names
    if known is not None:
        return by_synset(listing, known, f"dataset.file={file}"), tuple(known.values())
    folders = sorted(set(listing.words))
    if len(words) != len(folders):
        raise ValueError(
            f"dataset.file={file} has {len(words)} lines, and {root} {len(folders)} class folders: one per folder, or lines with synsets"
        )
    place = {word: number for number, word in enumerate(folders)}
    return [place[word] for word in listing.words], tuple(words)
