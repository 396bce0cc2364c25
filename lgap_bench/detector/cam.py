"""The region that matters most to a classifier: an approximation of CIIDefence's (Gupta and Rahtu 2019).

CIIDefence takes the peaks of class activation maps of the top classes and inpaints small windows around them. Ours, for
any classifier: the part of the image in which the top logit's gradient is largest, whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from lgap_bench.detector import masks
from lgap_bench.detector.base import Detector, Found
from lgap_bench.noise import Noise


class Saliency(Detector):
    """Images (B, 3, H, W) in [0, 1] -> the share of each where |d top logit / d x|, smoothed, is largest; the top class.

    It has no presence of its own: who fools the classifier moves the region too.

    Args:
        classifier: images in [0, 1] -> logits (B, K), differentiable; frozen by who owns it.
        classes: its K words.
        share: of the image's area, in (0, 1).
        blur: sigma of the smoothing as a share of the shorter side; 0 is none.
        dilation: pixels by which the mask is grown.
    """

    def __init__(
        self, classifier: nn.Module, classes: Sequence[str], share: float = 0.25, blur: float = 0.03, dilation: int = 0
    ) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"detector.share={share} is not in (0, 1): it is a share of the image's area, use 0.25")
        if blur < 0 or dilation < 0:
            raise ValueError(f"detector.blur={blur} and dilation={dilation} have to be 0 or more: use 0 for none")
        self.classifier = classifier.eval()
        self.names = tuple(classes)
        self.share, self.blur, self.dilation = share, blur, dilation

    def find(self, x: Tensor, noise: Noise | None) -> list[Found]:
        """The most salient share of each image (B, 3, H, W), under the word of its top class."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            logits = self.classifier(x)
            (gradient,) = torch.autograd.grad(logits.amax(1).sum(), x)
        if logits.shape[1] != len(self.names):
            raise ValueError(
                f"detector: its classifier gives {logits.shape[1]} logits for {len(self.names)} classes: choose a classifier of that data set"
            )
        scores, top = logits.detach().softmax(1).max(1)
        saliency = self._smoothed(gradient.abs().sum(1, keepdim=True))[:, 0]
        return [self._found(*each) for each in zip(saliency, top, scores, strict=True)]

    def _smoothed(self, saliency: Tensor) -> Tensor:
        sigma = self.blur * min(saliency.shape[-2:])
        if sigma <= 0:
            return saliency
        side = 2 * min(round(3 * sigma), min(saliency.shape[-2:]) - 1) + 1
        return gaussian_blur(saliency, [side, side], [sigma, sigma])

    def _found(self, saliency: Tensor, top: Tensor, score: Tensor) -> Found:
        count = max(1, round(self.share * saliency.numel()))
        chosen = saliency.flatten().topk(count).indices
        mask = torch.zeros(saliency.numel(), dtype=torch.bool, device=saliency.device)
        mask[chosen] = True
        mask = mask.view(saliency.shape)
        box = masks.around(mask).to(saliency)
        return Found((self.names[int(top)],), score[None], box[None], masks.dilated(mask, self.dilation))
