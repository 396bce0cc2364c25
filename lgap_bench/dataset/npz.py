"""Arrays in an .npz file as a data set: bytes or floats, labels, and where known each image's index in the whole."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lgap_bench.dataset.base import DataSet
from lgap_bench.dataset.images import Bytes, Images
from lgap_bench.dataset.listing import require_same_order

NAMES = {"images": ("images", "x"), "labels": ("labels", "y")}  # what an array may be called


@dataclass(frozen=True)
class Stored:
    """Images and labels as a file stores them.

    Attributes:
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64.
        index: (N,) int64, each image's place in the whole data set, or None where the file does not say.
        classes: the names of the labels, or None.
    """

    images: Images
    labels: NDArray[np.int64]
    index: NDArray[np.int64] | None = None
    classes: tuple[str, ...] | None = None


def read_npz(file: str, key: str) -> Stored:
    """`images` or `x` (N, H, W, C), uint8 or floats in [0, 1]; `labels` or `y` (N,); optional `index` (N,) and `classes`.

    Raises ValueError naming `key` and the file for anything else; pickled objects in it are not read.
    """
    arrays = _arrays(file, key)
    found = {}
    for what, names in NAMES.items():
        there = [name for name in names if name in arrays]
        if len(there) != 1:
            raise ValueError(
                f"{key}={file} holds {', '.join(arrays) or 'nothing'}: call one array {' or '.join(names)}, that is its {what}"
            )
        found[what] = arrays[there[0]]
    images, labels = _images(found["images"], f"{key}={file}"), _whole(found["labels"], "labels", f"{key}={file}")
    index = _whole(arrays["index"], "index", f"{key}={file}") if "index" in arrays else None
    for name, array in (("labels", labels), ("index", index)):
        if array is not None and len(array) != len(images):
            raise ValueError(f"{key}={file}: {len(array)} {name} for {len(images)} images: give one per image")
    if not len(images):
        raise ValueError(f"{key}={file} holds no image: give an array of (N, H, W, 3)")
    require_once(index, f"{key}={file}")
    classes = tuple(str(word) for word in arrays["classes"].tolist()) if "classes" in arrays else None
    return Stored(images, labels, index, classes)


def require_once(index: NDArray[np.int64] | None, what: str) -> None:
    """Raise ValueError for an index that two images have: they would share noise and a place in the data set."""
    values, counts = np.unique(np.empty(0) if index is None else index, return_counts=True)
    twice = values[counts > 1]
    if len(twice):
        raise ValueError(f"{what}: index {int(twice[0])} stands there twice: keep one image of each index")


def npz(
    file: str,
    classes: Sequence[str] | None = None,
    caption: str = "a photo of a {label}",
    synonyms: Mapping[str, Sequence[str]] | None = None,
    unrelated: str | None = None,
) -> DataSet:
    """All images of an .npz file in its order, see `read_npz`; an image's id is its `index`, or else its place.

    Args:
        classes: names of the labels; null takes the file's own, or `class 0`, `class 1`, ...
    """
    held = read_npz(file, "dataset.file")
    names = classes or held.classes or [f"class {number}" for number in range(int(held.labels.max()) + 1)]
    if classes is not None and held.classes is not None:
        require_same_order(classes, held.classes, f"dataset.file={file}")
    ids = np.arange(len(held.labels)) if held.index is None else held.index
    labels = torch.from_numpy(held.labels)
    return DataSet(
        "npz", "test", held.images, labels, torch.from_numpy(ids), tuple(names), caption, synonyms or {}, unrelated
    )


def _arrays(file: str, key: str) -> dict[str, Any]:
    try:
        with np.load(Path(file).expanduser(), allow_pickle=False) as held:
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise ValueError("a bare array")
            return {name: held[name] for name in held.files}
    except FileNotFoundError:
        raise ValueError(f"{key}={file} does not exist: give the path of an .npz file") from None
    except (
        OSError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{key}={file} is no .npz file of plain arrays ({reason}): save it by numpy.savez") from None


def _images(array: NDArray[Any], what: str) -> Images:
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        mend = "transpose(0, 2, 3, 1)" if array.ndim == 4 and array.shape[1] in (1, 3) else "store (N, H, W, 3)"
        raise ValueError(f"{what}: images are {array.shape} and not (N, H, W, 3) or (N, H, W, 1): {mend}")
    if array.dtype == np.uint8:
        return Bytes(array)
    if array.dtype.kind != "f":
        raise ValueError(f"{what}: images are {array.dtype}: store bytes (uint8), or floats in [0, 1]")
    if array.size and not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        low, high = float(array.min()), float(array.max())
        raise ValueError(
            f"{what}: images are {array.dtype} in [{low:.4g}, {high:.4g}] and not in [0, 1]: divide by 255, or store bytes (uint8)"
        )
    return torch.from_numpy(array.astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def _whole(array: NDArray[Any], name: str, what: str) -> NDArray[np.int64]:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{what}: {name} are {array.dtype} of shape {array.shape}: store whole numbers, (N,)")
    return array.astype(np.int64)
