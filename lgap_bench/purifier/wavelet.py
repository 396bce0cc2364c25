"""A wavelet denoiser: the second half of CIIDefence (Gupta and Rahtu 2019), with one threshold for all bands."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 2  # of the wavelet transform


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
