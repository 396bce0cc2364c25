"""Attacked images made elsewhere: a file of floating images in [0, 1], by sample id or in the order of the cell's samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from lgap_bench.attack.problem import Problem
from lgap_bench.attack.threat import TOLERANCE, Threat
from lgap_bench.dataset.base import DataSet

IMAGES, IDS = "attacked", "ids"  # names of the arrays in a file that holds several; a record's images.npz has both
SAMPLES = "samples.parquet"  # beside an images.npz of 0.1, which has no ids: its column `id` says whose they are
ROWS = 256  # images that are checked at a time


class Given:
    """Hands out images that are in a file already; they are scored on fresh draws like any attack's.

    `.npy` holds the images alone; `.npz`, `.pt` (read with weights_only) and `.safetensors` may hold several arrays: the
    images are the one called `attacked`, or the only one beside `ids`. Images are (n, C, H, W), floating, in [0, 1].
    With `ids` (n,) each belongs to the sample of that id, in any order, and more than the cell asks for may be there;
    a record's own `images.npz` has them (one of 0.1 takes them from the `samples.parquet` beside it). Without, they are the cell's first
    samples in their order. Everything is checked when the cell is built, before anything is scored.

    Args:
        file: path of the file.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        arrays = self._read()
        self.images = self._images(arrays)
        self.ids = self._ids(arrays)
        self.place: dict[int, int] = {} if self.ids is None else {each: row for row, each in enumerate(self.ids)}

    def arrange(self, dataset: DataSet, n: int, threat: Threat) -> None:
        """Find the images of the first n samples of a data set.

        Raises ValueError for the first sample without an image, and for an image of another shape or outside the ball.
        """
        ids, clean = dataset.ids[:n].tolist(), dataset.images[:n]
        if self.images.shape[1:] != clean.shape[1:]:
            self._refuse(
                f"holds images of shape {tuple(self.images.shape[1:])}, and dataset={dataset.name} has "
                f"{tuple(clean.shape[1:])}: give attacked images of this data set, channels first"
            )
        if self.ids is None:
            if len(self.images) < len(ids):
                self._refuse(f"holds {len(self.images)} images, and n={n}: lower n or give one image per sample")
            self.place = {each: row for row, each in enumerate(ids)}
        for each in ids:
            if each not in self.place:
                self._refuse(f"has no image of sample {each}, its ids begin with {self._first()}: add it or lower n")
        for first in range(0, len(ids), ROWS):
            self._check_ball(ids[first : first + ROWS], clean[first : first + ROWS], threat)

    def __call__(self, problem: Problem) -> Tensor:
        """The given images (B, C, H, W) of these samples."""
        for each in problem.ids:
            if each not in self.place:
                self._refuse(f"has no image of sample {each}: add it, with its id in `{IDS}`")
        return self._of(problem.ids).to(problem.x)

    def _of(self, ids: tuple[int, ...] | list[int]) -> Tensor:
        return self.images[[self.place[each] for each in ids]]

    def _check_ball(self, ids: list[int], clean: Tensor, threat: Threat) -> None:
        length = threat.length(self._of(ids).to(clean) - clean)
        outside = (length > threat.eps + TOLERANCE * max(1.0, threat.eps)).nonzero().flatten().tolist()
        if outside:
            row = outside[0]
            self._refuse(
                f"the image of sample {ids[row]} is {float(length[row]):.4g} from the clean one, outside the {threat.norm} "
                f"ball of {threat.eps:.4g}: raise threat.eps, or give images in the order of the cell's samples or with ids"
            )

    def _read(self) -> dict[str, Any]:
        """The arrays by name; tensors of torch, arrays of numpy or whatever else the file holds."""
        path = Path(self.file)
        reader = READERS.get(path.suffix)
        if reader is None:
            self._refuse(f"is none of {', '.join(READERS)}: save the images as one of these")
        if not path.is_file():
            self._refuse("does not exist: give the path of an existing file")
        try:
            held = reader(path)
        except Exception as error:  # whatever a library says of bytes that are not its own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
            self._refuse(f"cannot be read as {path.suffix} ({reason}): save it again with images and, if you like, ids")
        arrays = dict(held) if isinstance(held, Mapping) else {IMAGES: held}
        samples = path.with_name(SAMPLES)
        if path.name == "images.npz" and IDS not in arrays and samples.is_file():
            arrays[IDS] = _record_ids(samples)
        return arrays

    def _images(self, arrays: Mapping[str, Any]) -> Tensor:
        names = [IMAGES] if IMAGES in arrays else [name for name in arrays if name != IDS]
        if len(names) != 1:
            self._refuse(f"holds {', '.join(map(str, names)) or 'nothing'}: name the array of images {IMAGES}")
        images = _tensor(arrays[names[0]])
        if images is None or images.dim() != 4 or not len(images):
            kind = type(arrays[names[0]]).__name__ if images is None else f"shape {tuple(images.shape)}"
            self._refuse(f"{names[0]} is of {kind}: give images (n, C, H, W)")
        if not images.dtype.is_floating_point:
            kind = str(images.dtype).removeprefix("torch.")
            self._refuse(f"holds {kind}: give floating images in [0, 1], bytes divided by 255")
        for row in range(0, len(images), ROWS):
            self._check_range(images[row : row + ROWS], row)
        return images

    def _check_range(self, images: Tensor, first: int) -> None:
        flat = images.flatten(1).float()
        finite, low, high = torch.isfinite(flat).all(1), flat.amin(1) >= -TOLERANCE, flat.amax(1) <= 1 + TOLERANCE
        bad = (~(finite & low & high)).nonzero().flatten().tolist()
        if bad:
            row = bad[0]
            what = "leaves [0, 1]" if bool(finite[row]) else "is not finite"
            found = (
                f" (from {float(flat[row].amin()):.4g} to {float(flat[row].amax()):.4g})" if bool(finite[row]) else ""
            )
            self._refuse(f"its image {first + row} {what}{found}: give pixels in [0, 1], bytes divided by 255")

    def _ids(self, arrays: Mapping[str, Any]) -> list[int] | None:
        if IDS not in arrays:
            return None
        ids = _tensor(arrays[IDS])
        if (
            ids is None
            or ids.dim() != 1
            or ids.dtype.is_floating_point
            or ids.dtype.is_complex
            or ids.dtype is torch.bool
        ):
            self._refuse(f"its {IDS} are no list of whole numbers: give the sample ids, one per image")
        if len(ids) != len(self.images):
            self._refuse(f"holds {len(self.images)} images and {len(ids)} {IDS}: give one id per image")
        found: list[int] = ids.tolist()
        if len(set(found)) < len(found):
            twice = next(each for row, each in enumerate(found) if each in found[:row])
            self._refuse(f"its {IDS} name sample {twice} twice: give one image per sample")
        return found

    def _first(self) -> str:
        return ", ".join(str(each) for each in list(self.place)[:3])

    def _refuse(self, why: str) -> NoReturn:
        raise ValueError(f"attack.file={self.file}: {why}")


def _npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _npy(path: Path) -> Any:
    with path.open("rb") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _pt(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


READERS: dict[str, Callable[[Path], Any]] = {".npz": _npz, ".npy": _npy, ".pt": _pt, ".safetensors": _safetensors}


def _record_ids(samples: Path) -> Any:
    import pyarrow.parquet as parquet

    return np.asarray(parquet.read_table(samples, columns=["id"])["id"].to_pylist())


def _tensor(value: Any) -> Tensor | None:
    """A tensor of what a file holds, or None where that is no array of numbers."""
    if isinstance(value, Tensor):
        return value.detach()
    try:
        return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else None
    except TypeError:  # numpy's strings and objects
        return None
