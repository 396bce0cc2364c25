"""COCO's val2017 (Lin et al. 2014): several objects per image, letterboxed to a square, from the official annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lgap_bench.dataset import coco_json, letterbox, outline, rule
from lgap_bench.dataset.base import DataSet, Objects
from lgap_bench.dataset.coco_json import Annotated, Annotations
from lgap_bench.dataset.images import ImageFiles
from lgap_bench.runtime.choices import require_choice
from lgap_bench.task.multi_label import MULTI_LABEL, first

CocoSplit = Literal["test", "validation"]
HELD_OUT = 5  # one image in five is for validation, where thresholds are chosen; no subset takes any of those


def coco(
    root: str,
    instances: Mapping[str, str],
    sentences: Mapping[str, str],
    classes: Sequence[str] | None = None,
    caption: str = "a photo of a {label}",
    split: CocoSplit = "test",
    subset: Mapping[str, Any] | None = None,
    size: int = 512,
    masks: bool = False,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    unrelated: str | None = None,
    look: bool = True,
) -> DataSet:
    """Images (n, 3, size, size) in [0, 1], read when their rows are asked for; ids are COCO's image ids.

    Args:
        root: folder of the images.
        instances, sentences: `{file: ...}`, the instances and the captions JSON.
        classes: their names by ascending category id, checked against the file's; null takes those of the file.
        split: `validation` is one annotated image in five, `test` the others; both by a fixed shuffle of the ids.
        subset: of `test`: keys of `rule.Rule`.
        masks: whether `objects` have masks; they are made when an image's objects are asked for.
        look: whether the image files are looked for now; what annotations alone say needs none.
    A class is present if an object or a crowd of it is in the image; `objects` has single objects alone. An image's
    caption is the official one with the lowest id. Raises ValueError for what `coco_json` and `rule` refuse, for other
    class names, and for an image file that is missing or of another size than annotated.
    """
    require_choice("dataset.split", split, CocoSplit)
    held = coco_json.instances(instances["file"])
    names = _class_names(held, classes, instances["file"])
    present = held.present()
    rows = split_rows(held, split)
    if subset is not None:
        rows = np.sort(rows)  # by ascending id, as a rule wants them
        rows = rows[rule.chosen(rule.parse(subset), _ids(held)[rows], present[rows])]
    images = tuple(held.images[row] for row in rows)
    if look:
        _check_files(images, root)
    there = torch.from_numpy(present[rows])
    return DataSet(
        "coco",
        split,
        ImageFiles(_files(images, root), partial(letterbox.letterbox, size=size), (3, size, size)),
        first(there),
        torch.from_numpy(_ids(held)[rows]),
        names,
        caption,
        synonyms or {},
        unrelated,
        MULTI_LABEL,
        there,
        coco_json.captions(sentences["file"], [image.id for image in images]),
        Boxed(images, size, masks),
    )


def split_rows(held: Annotations, split: CocoSplit) -> np.ndarray:
    """Rows of a split's images: a fixed shuffle of the annotated images is cut, so that no subset meets validation.

    Any first n of them are a random draw.
    """
    shuffled = np.random.RandomState(0).permutation(len(held.images))
    held_out = len(shuffled) // HELD_OUT
    return shuffled[:held_out] if split == "validation" else shuffled[held_out:]


@dataclass(frozen=True)
class Boxed(Sequence[Objects]):
    """The objects of each image in its letterboxed square, made when they are asked for: masks would fill the memory."""

    images: tuple[Annotated, ...]
    size: int
    masks: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: Any) -> Any:
        """Those of one image, or a list of those of a slice."""
        if isinstance(row, slice):
            return [self._objects(image) for image in self.images[row]]
        return self._objects(self.images[row])

    def _objects(self, image: Annotated) -> Objects:
        pixels = np.array([thing.box for thing in image.things], np.float64).reshape(-1, 4)
        return Objects(
            torch.tensor([thing.label for thing in image.things], dtype=torch.int64),
            letterbox.boxes(pixels, image.width, image.height, self.size),
            letterbox.masks(_outlines(image), self.size) if self.masks else None,
        )


def _outlines(image: Annotated) -> np.ndarray:
    out = np.zeros((len(image.things), image.height, image.width), np.uint8)
    for row, thing in zip(out, image.things, strict=True):
        row[:] = outline.mask(thing.outline, image.width, image.height)
    return out


def _ids(held: Annotations) -> np.ndarray:
    return np.array([image.id for image in held.images], np.int64)


def _files(images: Sequence[Annotated], root: str) -> tuple[Path, ...]:
    return tuple(Path(root).expanduser() / image.file for image in images)


def _class_names(held: Annotations, classes: Sequence[str] | None, file: str) -> tuple[str, ...]:
    if classes is None:
        return held.classes
    for place, (found, wanted) in enumerate(zip(held.classes, classes, strict=False)):
        if found != wanted:
            raise ValueError(
                f"dataset.classes: class {place} is {wanted}, and {file} calls it {found}: use its names, or classes=null"
            )
    if len(held.classes) != len(classes):
        raise ValueError(
            f"dataset.classes has {len(classes)} names, and {file} {len(held.classes)} categories: use its names, or classes=null"
        )
    return tuple(classes)


def _check_files(images: Sequence[Annotated], root: str) -> None:
    """Every image is there and as large as annotated: its boxes would mean other places otherwise. Reads headers alone."""
    from PIL import Image

    files = _files(images, root)
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ValueError(
            f"dataset.root={root}: {missing[0].name} is missing, {len(missing)} of {len(files)} images, looked in "
            f"{missing[0].parent.resolve()}: download COCO's val2017.zip and unpack it there"
        )
    for image, file in zip(images, files, strict=True):
        try:
            with Image.open(file) as held:
                found = _turned(held.size, held.getexif().get(0x0112))
        except (OSError, ValueError, SyntaxError):
            continue  # a damaged file is refused where it is read, with the reason
        if found != (image.width, image.height):
            raise ValueError(
                f"image {file} is {found[0]}x{found[1]} and annotated as {image.width}x{image.height}: take the official file"
            )


def _turned(size: tuple[int, int], orientation: int | None) -> tuple[int, int]:
    """The size after the turn that EXIF asks for, which is how the image is read."""
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size
