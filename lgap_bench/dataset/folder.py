"""Any image folder as a data set: a folder per class, or a flat one with a label file. Files are read when they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lgap_bench.dataset.base import DataSet
from lgap_bench.dataset.images import ImageFiles, read_rgb
from lgap_bench.dataset.listing import by_synset, listed, numbered, synsets
from lgap_bench.runtime.text import read_lines

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Fit:
    """An RGB image -> (3, H, W) float in [0, 1], as torchvision's Resize, CenterCrop and ToTensor make it.

    Args:
        resize: length of the short side (bilinear), or null for the image as it is.
        crop: side of the square at the centre, or null for the whole.
    Raises ValueError for an image that is smaller than its crop: torchvision would fill the rest with black.
    """

    resize: int | None
    crop: int | None

    def __call__(self, image: Image) -> Tensor:
        from torchvision.transforms.functional import center_crop, resize, to_tensor

        if self.resize is not None:
            image = resize(image, [self.resize])
        if self.crop is not None:
            if min(image.size) < self.crop:
                raise ValueError(
                    f"an image of {image.size[0]}x{image.size[1]} is smaller than dataset.crop={self.crop}: set dataset.resize={self.crop} or lower the crop"
                )
            image = center_crop(image, [self.crop])
        return to_tensor(image)


def images(
    root: str,
    labels: str | None = None,
    file: str | None = None,
    classes: Sequence[str] | None = None,
    caption: str = "a photo of a {label}",
    resize: int | None = None,
    crop: int | None = None,
    data_seed: int | None = 0,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    unrelated: str | None = None,
) -> DataSet:
    """All images of a folder, (N, 3, H, W) in [0, 1]; memory is that of the rows that are asked for.

    Args:
        root: a folder with one folder per class, or a flat one (see `listing.listed`).
        labels: a flat folder's label file; null takes `labels.csv` or `labels.txt` in the folder.
        file: a text file with one class name per line, in the classifier's order; ImageNet's list with synsets too.
        classes: the same names in the config instead; null without a file: the folders' names in sorted order.
        resize, crop: see `Fit`. Without them all images have to be of one size.
        data_seed: of the one shuffle that makes the first n images a random draw; null keeps the sorted order, in which
            class folders begin with one class alone.
    The id of an image is its place in the sorted order, whatever the shuffle.
    Raises ValueError for what `listed` and `numbered` refuse, and when a row is read that cannot be.
    """
    if resize is not None and crop is not None and crop > resize:
        raise ValueError(f"dataset.crop={crop} is more than dataset.resize={resize}: images are cropped after resizing")
    listing = listed(root, labels)
    known = synsets(read_lines(file, "dataset.file"), f"dataset.file={file}") if file else None
    if known is not None and not listing.numbers:
        numbers, names = by_synset(listing, known, f"dataset.file={file}"), tuple(known.values())
    else:
        given = list(known.values()) if known else read_lines(file, "dataset.file") if file else classes
        numbers, names = numbered(listing, given)
    order = np.arange(len(numbers))
    if data_seed is not None:
        order = np.random.RandomState(data_seed).permutation(len(numbers))
    fit = Fit(resize, crop)
    files = tuple(listing.files[place] for place in order)
    held = ImageFiles(files, fit, _size(listing.files[0], fit))
    chosen = torch.tensor(numbers)[torch.from_numpy(order)]
    return DataSet("images", "test", held, chosen, torch.from_numpy(order), names, caption, synonyms or {}, unrelated)


def _size(file: Path, fit: Fit) -> tuple[int, int, int]:
    """(C, H, W) of the first file, which is that of all."""
    if fit.crop is not None:
        return (3, fit.crop, fit.crop)
    channels, height, width = fit(read_rgb(file)).shape
    return (channels, height, width)
