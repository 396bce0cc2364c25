"""Agree or disagree: a record's accuracies beside those of the same images on new draws, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.dataset.base import DataSet
from lgap_bench.metric.interval import paired_interval
from lgap_bench.record import Record
from lgap_bench.runtime import files
from lgap_bench.task.single_label import SINGLE_LABEL

CLOSE = 1e-4  # how far a recorded distance may lie from the one that is found: sums differ in their last digits
NEAR = 0.1  # of the median margin: answers as close to turning as that may be turned by another machine's rounding
TITLES = {"natural": "clean", "robust": "attacked"}


@dataclass(frozen=True)
class Compared:
    """One accuracy, in percent; the difference is `again` minus `recorded`, in points, with its 95 % interval over images.

    Attributes:
        changed: images whose share of right draws is not the same.
        turned: of a defense that draws nothing, those whose answer here is not close to turning, so that no rounding explains
            it; 0 of one that draws.
        images: how many count.
    """

    title: str
    recorded: float
    again: float
    difference: float
    low: float
    high: float
    changed: int
    turned: int
    images: int

    @property
    def agrees(self) -> bool:
        """Whether the interval of the difference holds 0, and of fixed answers at most `tolerated` were turned."""
        return self.low <= 0 <= self.high and self.turned <= tolerated(self.images)


def tolerated(images: int) -> int:
    """How many fixed answers may be turned: a caption or a box that rounding changes can turn one for good.

    Without this a defense that draws nothing could claim a few images more: an interval over images would not tell.
    """
    return 1 + images // 100


def compared(record: Record, again: Record) -> list[Compared]:
    """Natural and robust accuracy; robust over the samples whose attack did not fail there, and not at all if none is left."""
    theirs, ours = record.samples(), again.samples()
    place = {each: row for row, each in enumerate(ours["id"])}
    rows = [place[each] for each in theirs["id"]]
    kept = ~np.asarray(theirs["failed"], bool)
    found = []
    for title, name in TITLES.items():
        chosen = kept if title == "robust" else np.ones_like(kept)
        if chosen.any():
            old = SINGLE_LABEL.correct(theirs, name)[chosen]
            new = SINGLE_LABEL.correct(ours, name)[rows][chosen]
            found.append(_compared(title, old, new, np.asarray(ours[f"{name}_margin"])[rows][chosen]))
    return found


def _compared(title: str, old: NDArray[np.bool_], new: NDArray[np.bool_], margins: NDArray[np.float64]) -> Compared:
    """Of right answers (images, draws) there and here, and the margins of those here."""
    before, after = old.mean(1), new.mean(1)
    difference, low, high = paired_interval(100 * (after - before)[None])
    changed, turned = before != after, 0
    if new.shape[1] == 1:  # the margin here, since a record can claim any
        turned = int((changed & (np.abs(margins[:, 0]) > NEAR * np.median(np.abs(margins)))).sum())
    recorded, again = 100 * float(before.mean()), 100 * float(after.mean())
    return Compared(title, recorded, again, difference, low, high, int(changed.sum()), turned, len(old))


def require_images(record: Record, dataset: DataSet, threat: Any) -> str | None:
    """Hold a record's images against the data set of this machine: None, or in words what the record claims and is not so.

    Raises ValueError where the data set is another one: other ids or labels, or no image as far as recorded.
    """
    samples, held = record.samples(), files.read_npz(record.folder / "images.npz", "and get the record again")
    n = len(samples["id"])
    if dataset.ids[:n].tolist() != samples["id"] or dataset.labels[:n].tolist() != samples["label"]:
        raise ValueError(
            f"record {record.folder.name}: the first {n} samples of dataset={dataset.name} have other ids or labels here: give the data that it was measured on, data=DIR"
        )
    attacked = _in_order(held, samples)
    shape = (n, *dataset.images[:1].shape[1:])
    if attacked is None or attacked.shape != shape:
        return f"images.npz does not hold one image of shape {shape[1:]} for each of the {n} samples"
    return _outside(attacked, dataset, threat, samples)


def _in_order(held: Mapping[str, NDArray[Any]], samples: Mapping[str, Any]) -> NDArray[Any] | None:
    """The images in the order of the samples; those of 0.1 have no ids and are."""
    if "attacked" not in held:
        return None
    place = {each: row for row, each in enumerate(held["ids"].tolist() if "ids" in held else samples["id"])}
    if set(place) != set(samples["id"]) or len(held["attacked"]) != len(place):
        return None
    return held["attacked"][[place[each] for each in samples["id"]]]


def _outside(attacked: NDArray[Any], dataset: DataSet, threat: Any, samples: Mapping[str, Any]) -> str | None:
    """Image by image, since a data set of files is read as it is asked for."""
    import torch

    ids, far, outside = samples["id"], 0, None
    for row, each in enumerate(ids):
        clean = dataset.images[row : row + 1]
        image = torch.from_numpy(attacked[row : row + 1]).to(clean)
        try:
            threat.check(image, clean, (each,), "record")
        except ValueError:
            length = float(threat.length(image - clean)[0])
            outside = outside or (
                f"the image of sample {each} is {length:.4g} from the clean one, outside [0, 1] or the {threat.norm} ball of {threat.eps:.4g}"
            )
        delta = (image - clean).flatten()
        found = {"linf": float(delta.abs().max()), "l2": float(delta.norm())}
        far += not all(abs(samples[key][row] - value) <= CLOSE * max(1.0, value) for key, value in found.items())
    if far == len(ids):
        raise ValueError(
            f"no image is as far from its clean one as recorded: dataset={dataset.name} holds other images here, give the data that the record was measured on, data=DIR"
        )
    return outside or (f"{far} of {len(ids)} images are not as far from their clean ones as recorded" if far else None)
