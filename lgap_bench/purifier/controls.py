"""Trivial purifiers that a proposed defense has to beat: downsampling, and the autoencoder without diffusion."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lgap_bench.noise import Noise
from lgap_bench.prior.latent import LatentPrior
from lgap_bench.purifier.base import Purifier


class Downsample(Purifier):
    """Average-pool to `size` x `size` and resize back (bilinear): what mere blurring is worth."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """Blur x; deterministic."""
        small = F.adaptive_avg_pool2d(x, self.size)
        return F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)


class VaeOnly(Purifier):
    """D(E(x)) with the posterior's noise and no diffusion step: what the autoencoder alone is worth."""

    randomized = True

    def __init__(self, prior: LatentPrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """Encode and decode x."""
        return self.prior.decode(self.prior.encode(x, noise))
