"""Image files as a data set's images: one file read safely, and many files read only when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpeg", ".jpg", ".png")
DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's names for grey values of 16 bits
MOST = 65_535  # of 16 bits


class Images(Protocol):
    """What `DataSet.images` may be: a tensor (N, C, H, W), or something that reads the rows it is asked for."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class ImageFiles:
    """Images in files, read at each look: memory is that of the rows that are asked for, however many there are.

    Args:
        files: one per image.
        transform: an RGB image -> (C, H, W) float in [0, 1].
        size: (C, H, W), the same for all.
    """

    files: tuple[Path, ...]
    transform: Callable[[Image], Tensor]
    size: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self.files), *self.size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any) -> Tensor:
        """One image (C, H, W), or those of a slice or of a list of rows (B, C, H, W)."""
        if isinstance(rows, int):
            return self._read(self.files[rows])
        chosen = self.files[rows] if isinstance(rows, slice) else [self.files[int(row)] for row in rows]
        out = torch.empty(len(chosen), *self.size)
        for place, file in enumerate(chosen):
            out[place] = self._read(file)
        return out

    def __iter__(self) -> Iterator[Tensor]:
        return (self._read(file) for file in self.files)

    def _read(self, file: Path) -> Tensor:
        image = self.transform(read_rgb(file))
        if tuple(image.shape) != self.size:
            raise ValueError(
                f"image {file} is {tuple(image.shape)} and not {self.size} as the others: set dataset.resize and dataset.crop"
            )
        require_range(image, f"image {file}")
        return image


@dataclass(frozen=True)
class Bytes:
    """Images held as bytes, a quarter of what floats take, and turned to floats at each look.

    Args:
        values: (N, H, W, C) uint8.
    """

    values: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        count, height, width, channels = self.values.shape
        return (count, channels, height, width)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Tensor:
        """One image (C, H, W), or those of a slice or of a list of rows (B, C, H, W), float32 in [0, 1]."""
        chosen = self.values[rows if isinstance(rows, int | slice) else np.asarray(rows, dtype=np.int64)]
        return torch.from_numpy(np.array(chosen)).movedim(-1, -3).float().div(255).contiguous()

    def __iter__(self) -> Iterator[Tensor]:
        return (self[row] for row in range(len(self)))


def rows_of(images: Images, rows: NDArray[np.int64]) -> Images:
    """Some of a data set's images, in the order asked for, read no sooner than the whole."""
    if isinstance(images, ImageFiles):
        return replace(images, files=tuple(images.files[row] for row in rows))
    return Bytes(images.values[rows]) if isinstance(images, Bytes) else images[torch.from_numpy(rows)]


def require_range(images: Tensor, what: str) -> None:
    """Raise ValueError if values are not all finite and in [0, 1]."""
    if not images.is_floating_point():
        raise ValueError(f"{what}: images are {images.dtype}: divide bytes by 255")
    if images.numel() and not (bool(torch.isfinite(images).all()) and images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"{what}: images are not all in [0, 1]: divide bytes by 255")


def class_folders(root: Path, key: str) -> list[tuple[Path, list[Path]]]:
    """Class folders in the order of their names, each with its image files in the order of theirs.

    What systems leave beside images is skipped: hidden files and folders, `__MACOSX`, anything that is no JPEG or PNG by
    name. Raises ValueError for a root that is no folder, and for a class folder without an image: something was not unpacked.
    """
    if not root.is_dir():
        raise ValueError(f"{key}={root} is no folder: give the folder that holds one folder per class")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and _shown(path) and path.name != "__MACOSX")
    found = [(folder, image_files(folder, key)) for folder in folders]
    empty = [folder.name for folder, files in found if not files]
    if empty:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise ValueError(
            f"{key}={root}: the class folder {empty[0]}{more} holds no image ({', '.join(SUFFIXES)}): unpack its images or "
            "remove the folder and its line of the class list"
        )
    return found


def image_files(folder: Path, key: str) -> list[Path]:
    """The JPEG and PNG files of a folder by name, hidden ones left out. Raises ValueError for two files of one image."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and _shown(f) and f.is_file())
    for first, second in pairwise(sorted(files, key=lambda file: file.stem)):
        if first.stem == second.stem:
            raise ValueError(
                f"{key}={folder}: {first.name} and {second.name} are two files of one image: remove one of them"
            )
    return files


def read_rgb(file: Path | BytesIO, name: str = "") -> Image:
    """A JPEG or PNG as 8-bit RGB, turned as its EXIF orientation says; bytes have a `name` for errors.

    Grey is repeated, palettes are looked up, CMYK is converted; 16-bit grey is scaled by its own maximum, 65,535 (Pillow
    alone would cut everything above 255). Raises ValueError, naming the file, if it is damaged or no image, if its values
    have no known maximum, or if it is transparent anywhere: what shows through is not in the file.
    """
    from PIL import Image, ImageOps

    named = name or str(file)
    try:
        with Image.open(file) as held:
            held.load()
            image = ImageOps.exif_transpose(held)
    except (OSError, ValueError, SyntaxError, EOFError, LookupError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).replace(f" {named!r}", "").split())
        raise ValueError(f"image {named} cannot be read ({reason}): delete it or download it again") from None
    if image.mode in DEEP:
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > MOST:
            raise ValueError(f"image {named} has values outside 16 bits: save it with 8 or 16 bits per value")
        image = Image.fromarray(np.round(values * (255 / MOST)).astype(np.uint8))
    if image.mode == "F":
        raise ValueError(f"image {named} holds floats, whose maximum is not known: save it with 8 or 16 bits per value")
    if "A" in image.getbands() or "transparency" in image.info:
        if np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
            raise ValueError(
                f"image {named} is transparent in places: flatten it on the background that it is meant for"
            )
        image.info.pop("transparency", None)
    return image.convert("RGB")


def _shown(path: Path) -> bool:
    return not path.name.startswith(".")
