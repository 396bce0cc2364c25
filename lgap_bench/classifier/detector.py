"""A detector's labels alone as the classifier: what Conditioned denoising's language knows without any purification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class DetectorClassifier(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> logits (B, K): of each class the largest log-odds of a box of it.

    A class is found where its logit is above log(t / (1 - t)) of the detector's threshold t, whatever the largest is.

    Args:
        detector: with `names` and `evidence(x) -> (B, len(names))`, differentiable.
        classes: the data set's K words, each of which the detector can say.
    """

    index: tuple[int, ...]

    def __init__(self, detector: Any, classes: Sequence[str]) -> None:
        super().__init__()
        if not hasattr(detector, "evidence"):
            raise ValueError(
                f"classifier: {type(detector).__name__} scores no classes: use a detector with labels, detr, rt_detr or yolos"
            )
        lacking = [word for word in classes if word not in detector.names]
        if lacking:
            raise ValueError(
                f"classifier: its detector has no label {lacking[0]}: choose weights trained on that data set, or set rename"
            )
        self.detector = detector
        self.index = tuple(detector.names.index(word) for word in classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.detector.evidence(x)[:, list(self.index)]
