"""Preprocessing as a published image processor's config says, differentiable, of images that are in [0, 1] already."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers of filters, as they stand in preprocessor_config.json


class Pixels(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> what a model of transformers reads: resized, cropped at the centre, normalised.

    Equal to the processor's own path for tensors with `do_rescale=False`; by default it would divide by 255 again. Like
    that path it cuts no overshoot of the bicubic filter. Nothing is padded: images of one batch have one size.

    Args:
        processor: an image processor of transformers: `size`, `resample`, `crop_size`, `image_mean`, `image_std` and
            which of them are used.
        part: who asks, for error messages.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, processor: Any, part: str) -> None:
        super().__init__()
        self.processor, self.part = processor, part
        if int(processor.resample) not in MODES:
            raise ValueError(f"{part}: its image processor resizes with filter {processor.resample}: use 2 or 3")
        self.mode = MODES[int(processor.resample)]
        normalised = getattr(processor, "do_normalize", False)  # RT-DETR's has mean and std and uses neither
        mean, std = (processor.image_mean, processor.image_std) if normalised else ([0.0] * 3, [1.0] * 3)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.sizes: dict[tuple[int, int], tuple[int, int]] = {}

    def forward(self, x: Tensor) -> Tensor:
        size = self.resized((x.shape[-2], x.shape[-1]))
        if size != tuple(x.shape[-2:]):
            x = F.interpolate(x, size=size, mode=self.mode, antialias=True, align_corners=False)
        return (self._cropped(x) - self.mean) / self.std

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) to which an image of this size is resized: the processor is asked, so that rounding is its own."""
        if not getattr(self.processor, "do_resize", True):
            return size
        if size not in self.sizes:
            blank = torch.zeros(3, *size)
            try:
                shape = self.processor.resize(blank, size=self.processor.size, resample=self.processor.resample).shape
            except (ValueError, TypeError, AttributeError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(
                    f"{self.part}: its image processor's size={self.processor.size} is no size ({reason}): mend its preprocessor_config.json"
                ) from None
            self.sizes[size] = (int(shape[-2]), int(shape[-1]))
        return self.sizes[size]

    def _cropped(self, x: Tensor) -> Tensor:
        if not getattr(self.processor, "do_center_crop", False):
            return x
        height, width = int(self.processor.crop_size["height"]), int(self.processor.crop_size["width"])
        top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
        if top < 0 or left < 0:
            raise ValueError(
                f"{self.part}: its image processor crops {height}x{width} out of {x.shape[-2]}x{x.shape[-1]}: make its size at least as large"
            )
        return x[..., top : top + height, left : left + width]
