"""What the tests of pixel purifiers share: a tiny random network, a prior whose score is known exactly, and switches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lgap_bench.noise import Noise, Stream
from lgap_bench.prior import schedule
from lgap_bench.prior.pixel import PixelPrior
from lgap_bench.prior.schedule import Step

# The one place that knows how purifiers are told what to keep for the backward pass.
KEEP: dict[str, float | None] = {"recomputed": 0.0, "kept": None}  # GiB


def noise_of(rows: int, seed: int = 0) -> Noise:
    """One draw for samples 0, 1, ..."""
    return Stream(seed, "score", tuple(range(rows))).draws()


def betas(train_steps: int = 1000) -> Tensor:
    """DDPM's linear schedule (Ho et al. 2020, section 4)."""
    return torch.linspace(1e-4, 0.02, train_steps, dtype=torch.float64)


def tiny(learned_variance: bool = False, seed: int = 0, labels: str = "scaled", **keep: Any) -> PixelPrior:
    """A random UNet2DModel of a few thousand weights for images of 8 x 8 or more, in float64."""
    from diffusers import UNet2DModel

    torch.manual_seed(seed)
    unet = UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=6 if learned_variance else 3,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
    )
    with torch.no_grad():
        for weight in unet.parameters():  # fresh weights barely listen to the image
            weight.mul_(1.2 if weight.dim() > 1 else 1)
    return PixelPrior(unet, torch.cumprod(1 - betas(), 0), labels, **keep).double()


class ExactPrior:
    """Data N(mean, std^2), pixel by pixel: the noise in x_t is known in closed form, at any time.

    `continuous` reads a label as a time of the VP-SDE, else as a timestep of the discrete schedule.
    """

    train_steps = 1000

    def __init__(self, mean: float = 0.3, std: float = 0.5, continuous: bool = True) -> None:
        self.mean, self.std, self.continuous = mean, std, continuous
        self.products = torch.cumprod(1 - betas(), 0)

    def alpha(self, t: int) -> float:
        return self.products[t].item() if t >= 0 else 1.0

    def label(self, t: float) -> float:
        return t

    def moments(self, a: float) -> tuple[float, float]:
        """Mean and variance of x_t at cumulative signal a."""
        return a**0.5 * self.mean, a * self.std**2 + 1 - a

    def predict(self, x_t: Tensor, label: float, condition: None = None) -> tuple[Tensor, None]:
        a = schedule.alpha(label) if self.continuous else self.alpha(int(label))
        mean, variance = self.moments(a)
        return (1 - a) ** 0.5 * (x_t - mean) / variance, None


def affine(prior: ExactPrior, sampler: Any, step: Step) -> tuple[float, float, float]:
    """(c, d, k) of x_s = c x_t + d + k n: with Gaussian data every step is affine, so moments follow exactly."""
    x = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    n = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    e, v = prior.predict(x, step.label)
    d, c, k = sampler(x, e, v, step, n).tolist()
    return c - d, d, k - d


def propagate(prior: ExactPrior, sampler: Any, t_star: float, mean: float, variance: float) -> tuple[float, float]:
    """Mean and variance of the trajectory's end, from those of its start."""
    for step in sampler.steps(prior, t_star):
        c, d, k = affine(prior, sampler, step)
        mean, variance = c * mean + d, c * c * variance + k * k
    return mean, variance
