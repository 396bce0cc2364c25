"""Where a purifier looked and what it read there: the measure that a detector brings to a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Columns = dict[str, NDArray[Any]]
MEANS = ("clean_region", "attacked_region", "attacked_region_iou")


@dataclass(frozen=True)
class Regions:
    """How large the detected region is, and whether an attack moved it.

    Args:
        read: what a purifier observed of one image -> its sentence and its mask (H, W) bool.
    """

    read: Callable[[str], tuple[str, Tensor]]

    def columns(self, x: Tensor, labels: Sequence[int], observed: Mapping[str, Any], published: Columns) -> Columns:
        """Per sample: the share of the image that was detected, clean and attacked, and how much of the two is common."""
        masks = {name: [self.read(each)[1] for each in texts] for name, texts in observed.items()}
        found = {f"{name}_region": np.asarray([share(mask) for mask in held]) for name, held in masks.items()}
        pairs = zip(masks["clean"], masks["attacked"], strict=True)
        return {**found, "attacked_region_iou": np.asarray([iou(a, b) for a, b in pairs])}

    def summary(self, chunks: Sequence[Columns], kept: NDArray[np.bool_]) -> dict[str, Any]:
        """Means in percent, and on how many images nothing was found; of attacked ones over the `kept`."""
        found: dict[str, Any] = {}
        for name in MEANS:
            values = np.concatenate([chunk[name] for chunk in chunks])
            values = values[kept] if name.startswith("attacked") else values
            if len(values):
                found[name] = 100 * float(values.mean())
                if not name.endswith("_iou"):
                    found[f"{name}_empty"] = int((values == 0).sum())
        return found


def share(mask: Tensor) -> float:
    """The share of its pixels that a mask (H, W) covers."""
    return float(mask.double().mean())


def iou(first: Tensor, second: Tensor) -> float:
    """Intersection over union of two masks (H, W); 1 where both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0
