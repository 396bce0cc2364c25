"""COCO's annotation files (Lin et al. 2014), read through pycocotools and checked: what is in which image, and captions."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.dataset.outline import Outline, inside, numbers

OFFICIAL = "download COCO's annotations_trainval2017.zip and unpack {name} there"
IDS = "COCO's own ids are 1 to 90 with gaps, YOLO's 0 to 79: take the official file"


@dataclass(frozen=True)
class Thing:
    """One annotated object.

    Attributes:
        label: place of its class in the order of category ids.
        box: left, top, right, bottom in pixels, cut to the image.
        outline: polygons or RLE, as the file has them.
    """

    label: int
    box: tuple[float, float, float, float]
    outline: Outline


@dataclass(frozen=True)
class Annotated:
    """One image and what is in it.

    Attributes:
        things: its single objects.
        labels: the classes in it, ascending, those of crowds too: a classifier that sees people in a crowd is right.
    """

    id: int
    file: str
    width: int
    height: int
    things: tuple[Thing, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Annotations:
    """Images by ascending id, the classes' names by category id, and how many of what were left out."""

    classes: tuple[str, ...]
    images: tuple[Annotated, ...]
    left_out: Mapping[str, int]

    def present(self) -> NDArray[np.bool_]:
        """(N, classes): which classes are in each image."""
        held = np.zeros((len(self.images), len(self.classes)), bool)
        for row, image in zip(held, self.images, strict=True):
            row[list(image.labels)] = True
        return held


def instances(file: str) -> Annotations:
    """An `instances` file. Left out and counted: images without an annotation, objects without a pixel in their image.

    Crowds (`iscrowd`) are regions of many objects: they are no `things`, and counted too.
    Raises ValueError in one line, naming the file and the annotation, for what is no instances file, an image or category
    that the file does not have, a box or polygon that is none, a damaged RLE, and an RLE of another size than its image.
    """
    held = _lists(file, "dataset.instances.file", ("images", "annotations", "categories"))
    labels = {int(each["id"]): place for place, each in enumerate(sorted(held["categories"], key=lambda c: c["id"]))}
    _check_entries(held, file)
    _check_references(held, labels, file)
    index = _indexed(held)
    out = {"images without an annotation": 0, "objects without a pixel in their image": 0, "crowd regions": 0}
    images = []
    for key in sorted(index.imgs):
        image = _image(index.imgs[key], index.imgToAnns.get(key, []), labels, file, out)
        if image.labels:
            images.append(image)
        else:
            out["images without an annotation"] += 1
    names = tuple(str(index.cats[key]["name"]) for key in labels)
    return Annotations(names, tuple(images), out)


def captions(file: str, ids: Sequence[int]) -> list[str]:
    """Of each image the official caption with the lowest id (COCO has five), its runs of blanks as one.

    Raises ValueError for an image without a caption.
    """
    key = "dataset.sentences.file"
    held = _lists(file, key, ("annotations",))["annotations"]
    first: dict[int, tuple[int, str]] = {}
    for each in held:
        text = each.get("caption")
        if not isinstance(text, str):
            raise ValueError(f"{key}={file} holds no captions: give captions_val2017.json")
        entry = (int(each["id"]), " ".join(text.split()))
        image = each.get("image_id", 0)
        first[image] = min(entry, first.get(image, entry))
    missing = [key for key in ids if key not in first]
    if missing:
        raise ValueError(
            f"{key}={file}: image {missing[0]} has no caption ({len(missing)} of {len(ids)}): "
            "take the captions file of the same images"
        )
    return [first[each][1] for each in ids]


def _lists(file: str, key: str, wanted: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    path = Path(file).expanduser()
    name = "captions_val2017.json" if key == "dataset.sentences.file" else "instances_val2017.json"
    try:
        held = json.loads(path.read_bytes())
    except OSError as error:
        reason = f"cannot be read ({error.strerror}, looked in {path.resolve().parent})"
        raise ValueError(f"{key}={file} {reason}: {OFFICIAL.format(name=name)}") from None
    except ValueError:
        raise ValueError(f"{key}={file} is no JSON, or half of one: {OFFICIAL.format(name=name)}") from None
    lacking = [w for w in wanted if not isinstance(held, dict) or not _are_objects(held.get(w))]
    if lacking:
        raise ValueError(f"{key}={file} has no list of {lacking[0]}: {OFFICIAL.format(name=name)}")
    return held


def _are_objects(entries: Any) -> bool:
    return isinstance(entries, list) and all(
        isinstance(each, dict) and isinstance(each.get("id"), int) for each in entries
    )


def _check_entries(held: Mapping[str, list[dict[str, Any]]], file: str) -> None:
    what = f"dataset.instances.file={file}"
    for kind in ("categories", "images", "annotations"):
        ids = [each["id"] for each in held[kind]]
        if len(set(ids)) != len(ids):
            raise ValueError(f"{what}: two {kind} have one id: take the official file")
    if not all(isinstance(each.get("name"), str) for each in held["categories"]):
        raise ValueError(f"{what}: a category has no name: take the official file")
    for each in held["images"]:
        sides: list[Any] = [each.get("width"), each.get("height")]
        if not isinstance(each.get("file_name"), str) or not numbers(sides) or min(sides) < 1:
            raise ValueError(f"{what}: image {each['id']} has no file_name, width or height: take the official file")


def _check_references(held: Mapping[str, list[dict[str, Any]]], labels: Mapping[int, int], file: str) -> None:
    what = f"dataset.instances.file={file}"
    images = {each["id"] for each in held["images"]}
    for each in held["annotations"]:
        if not {"image_id", "category_id", "bbox", "segmentation"} <= each.keys():
            raise ValueError(
                f"{what}: annotation {each['id']} has no image_id, category_id, bbox or segmentation: give instances_val2017.json"
            )
        if each["image_id"] not in images:
            raise ValueError(
                f"{what}: annotation {each['id']} is of image {each['image_id']}, which the file does not have: take the official file"
            )
        if each["category_id"] not in labels:
            raise ValueError(
                f"{what}: annotation {each['id']} is of category {each['category_id']}, which the file does not have: {IDS}"
            )


def _indexed(held: Mapping[str, Any]) -> Any:
    from pycocotools.coco import COCO

    index = COCO()
    index.dataset = held
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how far it is
        index.createIndex()
    return index


def _image(
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    labels: Mapping[int, int],
    file: str,
    out: dict[str, int],
) -> Annotated:
    width, height = int(image["width"]), int(image["height"])
    things, seen = [], set()
    for each in sorted(annotations, key=lambda a: a["id"]):
        what = f"dataset.instances.file={file}: annotation {each['id']}"
        label, box = labels[each["category_id"]], _box(each["bbox"], width, height, what)
        within = inside(each["segmentation"], width, height, what)
        if not within or box[0] >= box[2] or box[1] >= box[3]:
            out["objects without a pixel in their image"] += 1
            continue
        seen.add(label)
        if each.get("iscrowd"):
            out["crowd regions"] += 1
        else:
            things.append(Thing(label, box, each["segmentation"]))
    return Annotated(int(image["id"]), image["file_name"], width, height, tuple(things), tuple(sorted(seen)))


def _box(held: Any, width: int, height: int, what: str) -> tuple[float, float, float, float]:
    """COCO's left, top, width, height as left, top, right, bottom, cut to the image."""
    if not numbers(held) or len(held) != 4 or min(held[2:]) < 0:
        raise ValueError(f"{what}: bbox {held} is not left, top, width and height: mend it or take the official file")
    left, top, wide, high = held
    return (
        min(max(left, 0.0), width),
        min(max(top, 0.0), height),
        min(max(left + wide, 0.0), width),
        min(max(top + high, 0.0), height),
    )
