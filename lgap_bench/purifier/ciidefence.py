"""After CIIDefence (Gupta and Rahtu 2019): inpaint the most class-relevant region, then denoise the whole image.

An approximation. The original masks up to a few small regions of the class activation maps of the top five classes and fills them with
a network of its own; here it is one region and this project's inpainting model. Its denoiser is a soft threshold of
wavelet coefficients, as here, with a threshold per band that it estimates (BayesShrink), where here it is a key.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgap_bench.detector.base import Detector
from lgap_bench.noise import Noise
from lgap_bench.prior.latent import LatentPrior
from lgap_bench.prior.timesteps import Spacing
from lgap_bench.purifier.inpaint import Inpaint, Region, Text

LEVELS = 2  # of the wavelet transform


class CIIDefence(Inpaint):
    """Inpaint under the mask of class relevance, then `shrunk`.

    Args:
        threshold: by which wavelet coefficients are pulled towards zero, in [0, 1] pixel units; 0 leaves the image.
        prior, detector, ...: as of `Inpaint`.
    """

    def __init__(
        self,
        prior: LatentPrior,
        detector: Detector,
        captioner: nn.Module | None,
        steps: int,
        strength: float | None = 1.0,
        start: int | None = None,
        spacing: Spacing = "leading",
        guidance_scale: float = 7.5,
        negative_prompt: str = "",
        resize_in: int | None = None,
        resize_out: int | None = None,
        region: Region = "inside",
        paste: bool = True,
        text: Text = "none",
        threshold: float = 0.05,
    ) -> None:
        super().__init__(
            prior, detector, captioner, steps, strength, start, spacing, guidance_scale, negative_prompt, resize_in,
            resize_out, region, paste, text,
        )  # fmt: skip
        if not 0 <= threshold <= 1:
            raise ValueError(f"purifier.threshold={threshold} is not in [0, 1]: it is a difference of pixels, try 0.05")
        self.threshold = threshold

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x (B, 3, H, W) in [0, 1] -> purified images in [0, 1]; differentiable in x."""
        return shrunk(super().forward(x, noise, observed), self.threshold)


def shrunk(x: Tensor, threshold: float, levels: int = LEVELS) -> Tensor:
    """Images (B, C, H, W) with their Haar coefficients soft-thresholded (Donoho 1995) on each of `levels` scales.

    The transform is orthonormal, so white noise of standard deviation s has coefficients of that size on every scale.
    Sides that are no multiple of 2 keep their last row or column as it is on that scale. Differentiable almost everywhere.
    """
    if levels == 0 or threshold == 0 or min(x.shape[-2:]) < 2:
        return x.clamp(0, 1) if threshold else x
    return _shrunk(x, threshold, levels).clamp(0, 1)


def _shrunk(x: Tensor, threshold: float, levels: int) -> Tensor:
    height, width = (side // 2 * 2 for side in x.shape[-2:])
    if not levels or not height or not width:
        return x
    even = x[..., :height, :width]
    a, b, c, d = (even[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
    coarse = _shrunk((a + b + c + d) / 2, threshold, levels - 1)
    details = [F.softshrink(each / 2, threshold) for each in (a - b + c - d, a + b - c - d, a - b - c + d)]
    h, v, g = details
    corners = ((coarse + h + v + g) / 2, (coarse - h + v - g) / 2, (coarse + h - v - g) / 2, (coarse - h - v + g) / 2)
    whole = F.pixel_shuffle(torch.stack(corners, dim=2).flatten(1, 2), 2)
    return torch.cat([torch.cat([whole, x[..., :height, width:]], -1), x[..., height:, :]], -2)
