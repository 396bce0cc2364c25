"""Images at the size that a diffusion model was trained on, and back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resized(x: Tensor, size: int | tuple[int, ...] | None, antialias: bool = True) -> Tensor:
    """Images (B, C, H, W) brought to a side length or (height, width), bilinearly; null and their own size leave them untouched.

    `antialias` is LGAP's release; DiffPure's goes without.
    """
    size = (size, size) if isinstance(size, int) else size
    if size is None or tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", antialias=antialias, align_corners=False)
