"""Masks (H, W), bool, from what was found: boxes, segments, ellipses; their union, and a wider one. Pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def centres(size: tuple[int, int], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """x (1, W) and y (H, 1) of the pixels' centres as shares of width and height, float64."""
    height, width = size
    y = (torch.arange(height, dtype=torch.float64, device=device) + 0.5) / height
    x = (torch.arange(width, dtype=torch.float64, device=device) + 0.5) / width
    return x[None, :], y[:, None]


def from_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (m, 4), left, top, right, bottom as shares in [0, 1] -> masks (m, H, W): the pixels whose centre is inside.

    By centres, so that the rounding of a box that ends between two pixels moves nothing.
    """
    x, y = centres(size, boxes.device)
    left, top, right, bottom = boxes.double()[:, :, None, None].unbind(1)
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


def from_segments(segments: Tensor, size: tuple[int, int]) -> Tensor:
    """Segments (m, h, w), bool, at any size -> masks (m, H, W), by the nearest pixel."""
    if tuple(segments.shape[-2:]) == size or not len(segments):
        return segments.new_zeros(0, *size) if not len(segments) else segments
    return F.interpolate(segments[:, None].float(), size=size, mode="nearest-exact")[:, 0] > 0.5


def from_ellipses(means: Tensor, covariances: Tensor, size: tuple[int, int], radius: float = 2.0) -> Tensor:
    """Normal distributions over pixels, means (m, 2) and covariances (m, 2, 2) of (x, y) -> masks (m, H, W).

    A pixel belongs to an ellipse if its centre is within `radius` standard deviations (Mahalanobis distance).
    """
    height, width = size
    x, y = centres(size, means.device)
    places = torch.stack([(x * width).expand(size), (y * height).expand(size)], dim=-1).view(-1, 2)
    away = places[None] - means.double()[:, None]
    distance = torch.einsum("mpi,mij,mpj->mp", away, torch.linalg.inv(covariances.double()), away)
    return (distance <= radius**2).view(-1, height, width)


def union(masks: Tensor) -> Tensor:
    """Masks (m, H, W) -> one (H, W): a pixel that any of them has; of no mask at all an empty one."""
    return masks.any(0) if len(masks) else masks.new_zeros(masks.shape[-2:], dtype=torch.bool)


def dilated(mask: Tensor, pixels: int) -> Tensor:
    """A mask (H, W) grown by a square of `pixels` to each side; 0 leaves it."""
    if not pixels:
        return mask
    wider = F.max_pool2d(mask[None, None].float(), 2 * pixels + 1, stride=1, padding=pixels)
    return wider[0, 0] > 0.5


def around(mask: Tensor) -> Tensor:
    """The smallest box (4,), left, top, right, bottom as shares, around a mask (H, W) that is not empty."""
    y, x = mask.nonzero(as_tuple=True)
    height, width = mask.shape
    sides = [x.min() / width, y.min() / height, (x.max() + 1) / width, (y.max() + 1) / height]
    return torch.stack(sides).double()
