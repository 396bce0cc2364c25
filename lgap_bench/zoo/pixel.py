"""The miniature's pixel-space diffusion model: a small UNet2DModel on images in [-1, 1], DDPM's linear schedule."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor

from lgap_bench.dataset.digits import digits
from lgap_bench.zoo.fit import Batch, fit, shift


def train(out: Path, work: Path) -> None:
    """Noise prediction (Ho et al. 2020), 1,000 steps, beta 1e-4 to 0.02."""
    torch.manual_seed(5)
    model = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 24, 48),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
    )
    schedule = DDPMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False)

    def loss(batch: Batch) -> Tensor:
        x = 2 * shift(batch.images, batch.generator) - 1
        noise = torch.randn(x.shape, generator=batch.generator)
        t = torch.randint(1000, (len(x),), generator=batch.generator)
        return F.mse_loss(model(schedule.add_noise(x, noise, t), t).sample, noise)

    fit("pixel", [model], loss, digits("train"), work, steps=1600, batch_size=48, lr=2e-3, ema=0.998)
    model.save_pretrained(out / "unet")
    schedule.save_pretrained(out / "scheduler")
