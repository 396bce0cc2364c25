"""What a data set of several objects per image holds: the numbers of conditioned denoising's table 1."""

from __future__ import annotations

from dataclasses import dataclass

from lgap_bench.dataset.base import DataSet
from lgap_bench.dataset.rule import digest


@dataclass(frozen=True)
class Statistics:
    """Counts and averages over some images.

    Attributes:
        classes: how many occur.
        images: how many there are.
        objects_per_image, classes_per_image: averages over the images.
        absent: classes of the data set that do not occur, in its order.
        sha256: of the images' ids in their order.
    """

    classes: int
    images: int
    objects_per_image: float
    classes_per_image: float
    absent: tuple[str, ...]
    sha256: str


def statistics(data: DataSet, images: int | None = None) -> Statistics:
    """Of the first `images` of a data set, or of all. Reads no image.

    Raises ValueError for a data set without `present` or `objects`, and for fewer images than asked for.
    """
    if data.present is None or data.objects is None:
        raise ValueError(f"dataset={data.name}: its objects are not known: use dataset=coco or scenes")
    count = len(data) if images is None else images
    if not 0 < count <= len(data):
        raise ValueError(f"n={count} is not in [1, {len(data)}], the images of dataset={data.name}: change n")
    present = data.present[:count]
    occurs = present.any(0).tolist()
    objects = sum(len(data.objects[row].labels) for row in range(count))
    return Statistics(
        sum(occurs),
        count,
        objects / count,
        float(present.sum()) / count,
        tuple(name for name, there in zip(data.classes, occurs, strict=True) if not there),
        digest(data.ids[:count].numpy()),
    )
