"""Detectors that do not look at the image: the true objects, a diagnostic, and everything."""

from __future__ import annotations

import torch
from torch import Tensor

from lgap_bench.dataset.base import DataSet, Objects
from lgap_bench.detector import masks
from lgap_bench.detector.base import Detector, Found
from lgap_bench.noise import Noise


class Everything(Detector):
    """The whole image, without a word: inpainting with no mask at all."""

    def find(self, x: Tensor, noise: Noise | None) -> list[Found]:
        whole = torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device)
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=x.device)
        return [Found((), box.new_ones(1), box, whole)] * len(x)


class Oracle(Detector):
    """The annotated objects: what a detector that no attack can move would find. A diagnostic, it cheats.

    Args:
        dataset: with `objects`; their masks where it has them, else their boxes.
        dilation: pixels by which the mask is grown.
    """

    by_image = False  # by the sample's id

    def __init__(self, dataset: DataSet, dilation: int = 0) -> None:
        super().__init__()
        if dataset.objects is None:
            raise ValueError(
                f"detector=oracle needs to know what is where, and dataset={dataset.name} does not say: use dataset=coco or scenes"
            )
        if dilation < 0:
            raise ValueError(f"detector.dilation={dilation} is negative: use 0 for none, or some pixels")
        self.names = tuple(dataset.classes)
        self.objects, self.dilation = dataset.objects, dilation
        self.row = {sample: row for row, sample in enumerate(dataset.ids.tolist())}

    def find(self, x: Tensor, noise: Noise | None) -> list[Found]:
        """The objects of each sample id. Raises ValueError without ids, and naming the first sample that is unknown."""
        if noise is None:
            raise ValueError("detector=oracle needs the samples' ids: call it with their noise")
        unknown = [sample for sample in noise.ids if sample not in self.row]
        if unknown:
            raise ValueError(f"detector=oracle knows no sample {unknown[0]}: give it the data set that is measured")
        size = (x.shape[-2], x.shape[-1])
        return [self._found(self.objects[self.row[sample]], size, x.device) for sample in noise.ids]

    def _found(self, held: Objects, size: tuple[int, int], device: torch.device) -> Found:
        boxes = held.boxes.to(device)
        each = masks.from_boxes(boxes, size)
        if held.masks is not None:
            each = masks.from_segments(held.masks.to(device), size)
        mask = masks.dilated(masks.union(each), self.dilation)
        return Found(tuple(self.names[int(k)] for k in held.labels), boxes.new_ones(len(boxes)), boxes, mask)
