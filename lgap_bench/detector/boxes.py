"""DETR (Carion et al. 2020), RT-DETR (Zhao et al. 2024) and YOLOS (Fang et al. 2021) on COCO's or a toy's objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lgap_bench.detector import masks, odds
from lgap_bench.detector.base import Detector, Found, require_names
from lgap_bench.noise import Noise
from lgap_bench.runtime import examined
from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.pixels import Pixels
from lgap_bench.runtime.pretrained import pretrained, require_finite

# model_type of a config -> class of model, class of image processor, whether scores are a softmax with "no object" last
KINDS = {
    "detr": ("DetrForObjectDetection", "DetrImageProcessor", True),
    "yolos": ("YolosForObjectDetection", "YolosImageProcessor", True),
    "rt_detr": ("RTDetrForObjectDetection", "RTDetrImageProcessor", False),
}
UNNAMED = "N/A"  # ids that COCO skips; the published DETR and YOLOS have 91 labels of which 80 are classes


class Boxes(Detector):
    """Images (B, 3, H, W) in [0, 1] -> labelled boxes, their union as a mask. Deterministic; weights frozen.

    The gradient of `presence` and `evidence` is exact for DETR and YOLOS. RT-DETR's own code takes its queries' first
    places and contents out of the graph, so its gradient is that of the decoder alone: a weaker attacker's.

    Args:
        model: a `DetrForObjectDetection`, `YolosForObjectDetection` or `RTDetrForObjectDetection`.
        processor: its image processor: size, filter, mean and std.
        threshold: score above which a box counts, in (0, 1).
        dilation: pixels by which the mask is grown.
        rename: words of the model -> words of the data set, where they differ.
    """

    attackable = True
    model: Any  # a transformers class, whose config nn.Module would hide
    said: Tensor

    def __init__(
        self,
        model: Any,
        processor: Any,
        threshold: float,
        dilation: int = 0,
        rename: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(
                f"detector.threshold={threshold} is not in (0, 1): use 0.9 for DETR and YOLOS, 0.5 for RT-DETR"
            )
        if dilation < 0:
            raise ValueError(f"detector.dilation={dilation} is negative: use 0 for none, or some pixels")
        self.model = model.eval().requires_grad_(False)
        self.pixels = Pixels(processor, "detector")
        self.softmax = KINDS[model.config.model_type][2]
        self.threshold, self.dilation = threshold, dilation
        labels = {int(k): (rename or {}).get(word, word) for k, word in model.config.id2label.items()}
        # transformers calls a label that a config does not name LABEL_k; "no object" is no label at all.
        self.words = {k: word for k, word in sorted(labels.items()) if word != UNNAMED}
        self.names = tuple(self.words.values())
        self.register_buffer("said", torch.tensor(list(self.words)), persistent=False)

    def output(self, x: Tensor) -> Any:
        """The model's own output: `logits` (B, Q, C) and `pred_boxes` (B, Q, 4), centre and size as shares."""
        return self.model(pixel_values=self.pixels(x).to(self.model.dtype))

    def find(self, x: Tensor, noise: Noise | None) -> list[Found]:
        """As the image processor's `post_process_object_detection`, without labels that are no class."""
        out = self.output(x)
        size = (x.shape[-2], x.shape[-1])
        return [self._found(*each, size) for each in zip(*self._scored(out.logits, out.pred_boxes), strict=True)]

    def presence(self, x: Tensor) -> Tensor:
        """(B,): see `odds.presence`, over the classes that the detector names."""
        return odds.presence(self.output(x).logits, self.said, self.softmax, self.threshold)

    def evidence(self, x: Tensor) -> Tensor:
        """(B, len(names)): of each class its largest log-odds over the queries, differentiable in x."""
        return odds.of_classes(self.output(x).logits, self.said, self.softmax)

    def _scored(self, logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores and labels (B, Q) and corners (B, Q, 4): a query's best class, or the Q best pairs of query and class."""
        x, y, width, height = boxes.unbind(-1)
        corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1).clamp(0, 1)
        if self.softmax:
            scores, labels = logits.softmax(-1)[..., :-1].max(-1)
            return scores, labels, corners
        queries, classes = logits.shape[1:]
        scores, index = logits.sigmoid().flatten(1).topk(queries, dim=-1)
        owner = (index // classes)[..., None].expand(-1, -1, 4)
        return scores, index % classes, corners.gather(1, owner)

    def _found(self, scores: Tensor, labels: Tensor, boxes: Tensor, size: tuple[int, int]) -> Found:
        """One image's detections above the threshold."""
        keep = (scores > self.threshold) & torch.isin(labels, self.said)
        order = scores[keep].argsort(descending=True, stable=True)
        scores, labels, boxes = (each[keep][order] for each in (scores, labels, boxes))
        mask = masks.dilated(masks.union(masks.from_boxes(boxes, size)), self.dilation)
        return Found(tuple(self.words[int(k)] for k in labels), scores, boxes, mask)


def load(
    weights: str,
    threshold: float,
    dilation: int = 0,
    classes: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
) -> Boxes:
    """A detector from a folder written by `save_pretrained`: model and image processor.

    Args:
        weights: the folder; its config.json says which model it is.
        threshold, dilation, rename: see `Boxes`.
        classes: the data set's, each of which the detector has to be able to say; null asks for none.
    """
    import transformers

    folder = weight_files.locate(weights)
    kind = _kind(folder, weights)
    if kind not in KINDS:
        raise ValueError(f"weights={weights}: model_type={kind} is no detector known here: use {', '.join(KINDS)}")
    model_class, processor_class, _ = KINDS[kind]
    model = pretrained(getattr(transformers, model_class), folder, weights)
    require_finite(model, weights)
    detector = Boxes(model, getattr(transformers, processor_class).from_pretrained(folder), threshold, dilation, rename)
    if classes is not None:
        require_names(detector, classes)
    return detector


def examine(weights: str) -> None:
    """Raise ValueError for what `load` would refuse, by headers and configs alone."""
    import transformers

    folder = weight_files.locate(weights)
    kind = _kind(folder, weights)
    if kind not in KINDS:
        raise ValueError(f"weights={weights}: model_type={kind} is no detector known here: use {', '.join(KINDS)}")
    examined.examine(getattr(transformers, KINDS[kind][0]), folder, weights)
    getattr(transformers, KINDS[kind][1]).from_pretrained(folder)


def _kind(folder: Path, weights: str) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text())["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"weights={weights}: {folder} has no config.json that names a model_type ({error}): copy or download it again"
        ) from None
