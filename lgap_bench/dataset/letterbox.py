"""Letterboxing: an image scaled until its longer side fits a square, black beside it. Boxes and masks go the same way.

Nothing is cut off, so that what is annotated in an image is what is seen of it: a centre crop would lose objects at the
rims or leave slivers of them, for which an image still counted as holding the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Place:
    """Where the scaled image lies in the square, in whole pixels."""

    left: int
    top: int
    width: int
    height: int


def place(width: int, height: int, size: int) -> Place:
    """The place of an image of that width and height in a square of `size`: centred, the longer side filling it."""
    scale = size / max(width, height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    return Place((size - inner[0]) // 2, (size - inner[1]) // 2, *inner)


def letterbox(image: Image, size: int) -> Tensor:
    """An RGB image as (3, size, size) float32 in [0, 1], scaled bilinearly (smoothed where it shrinks), black beside it."""
    from PIL import Image as pillow

    at = place(*image.size, size)
    canvas = np.zeros((size, size, 3), np.uint8)
    scaled = image.resize((at.width, at.height), pillow.Resampling.BILINEAR)
    canvas[at.top : at.top + at.height, at.left : at.left + at.width] = np.asarray(scaled)
    return torch.from_numpy(canvas).permute(2, 0, 1).float().div(255).contiguous()


def boxes(pixels: NDArray[np.float64], width: int, height: int, size: int) -> Tensor:
    """Boxes (m, 4) left, top, right, bottom in the image's pixels as shares of the square, (m, 4) float32 in [0, 1]."""
    at = place(width, height, size)
    scale = np.array([at.width / width, at.height / height] * 2)
    return torch.from_numpy((pixels * scale + [at.left, at.top] * 2) / size).float().clamp(0, 1).reshape(-1, 4)


def masks(pixels: NDArray[np.uint8], size: int) -> Tensor:
    """Masks (m, height, width) of 0 and 1 as (m, size, size) bool: of every pixel its nearest in the image."""
    at = place(pixels.shape[2], pixels.shape[1], size)
    out = torch.zeros(len(pixels), size, size, dtype=torch.bool)
    if len(pixels):
        scaled = torch.nn.functional.interpolate(
            torch.from_numpy(pixels)[:, None].float(), (at.height, at.width), mode="nearest-exact"
        )
        out[:, at.top : at.top + at.height, at.left : at.left + at.width] = scaled[:, 0] > 0
    return out
