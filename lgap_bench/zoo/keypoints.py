"""The miniature's SuperPoint: transformers' own class at toy size, trained to find the corners of strokes.

The paper trains on drawn shapes whose corners are known, then on its own answers under homographies (DeTone et al. 2018,
sections 4 and 5). Here the corners are Harris's (Harris and Stephens 1988) of clean scenes, on images with noise.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SuperPointConfig, SuperPointForKeypointDetection, SuperPointImageProcessor

from lgap_bench.dataset.scenes import scenes
from lgap_bench.zoo.fit import Batch, fit

CELL = 8  # pixels a side: SuperPoint answers per cell with one of its 64 pixels, or with none
NONE = CELL * CELL
CORNER = 0.02  # least response, as a share of what a sharp corner of full contrast has


def build() -> SuperPointForKeypointDetection:
    """Widths 8 to 32; descriptors, which nobody reads here, of 8 numbers."""
    return SuperPointForKeypointDetection(
        SuperPointConfig(
            encoder_hidden_sizes=[8, 16, 32, 32],
            decoder_hidden_size=32,
            keypoint_decoder_dim=NONE + 1,
            descriptor_decoder_dim=8,
            keypoint_threshold=0.02,  # 92 % of the ink of validation scenes lies in the mask, 64 % at 0.07
            max_keypoints=-1,
            nms_radius=2,
            border_removal_distance=1,
        )
    )


def train(out: Path, work: Path) -> None:
    """Cross-entropy per cell; half of the images with Gaussian noise (sigma up to 0.1)."""
    torch.manual_seed(11)
    model = build()
    head = model.keypoint_decoder

    def loss(batch: Batch) -> Tensor:
        x = batch.images[:, :1]
        target = corners(x)
        sigma = 0.1 * torch.rand(len(x), 1, 1, 1, generator=batch.generator)
        sigma[: len(x) // 2] = 0
        noisy = (x + sigma * torch.randn(x.shape, generator=batch.generator)).clamp(0, 1)
        logits = head.conv_score_b(torch.relu(head.conv_score_a(model.encoder(noisy)[0])))
        return F.cross_entropy(logits, target)

    fit("keypoints", [model], loss, scenes("train"), work, steps=1200, lr=3e-3, ema=0.99)
    model.save_pretrained(out)
    side = {"height": 48, "width": 48}
    SuperPointImageProcessor(do_resize=True, size=side, do_grayscale=True).save_pretrained(out)


def corners(x: Tensor) -> Tensor:
    """Per cell of grey images (B, 1, H, W) the place of its strongest Harris corner, 0 to 63 by rows, or 64: (B, H/8, W/8)."""
    response = harris(x)
    peak = F.max_pool2d(response, 3, stride=1, padding=1)
    cells = F.pixel_unshuffle(torch.where(response == peak, response, 0.0), CELL)
    value, place = cells.max(dim=1)
    return torch.where(value > CORNER, place, NONE)


def harris(x: Tensor) -> Tensor:
    """Harris's response of grey images (B, 1, H, W), det - 0.05 trace^2 of the summed gradient products in windows of 5."""
    slope = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=x.dtype).view(1, 1, 3, 3) / 8
    dx, dy = F.conv2d(x, slope, padding=1), F.conv2d(x, slope.transpose(2, 3), padding=1)
    xx, yy, xy = (F.avg_pool2d(each, 5, stride=1, padding=2) * 5 for each in (dx * dx, dy * dy, dx * dy))
    return xx * yy - xy * xy - 0.05 * (xx + yy) ** 2
