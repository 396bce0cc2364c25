"""EDM (Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models") as a noise network.

EDM's CIFAR-10 network of the variance-preserving kind is DDPM++ in other widths; it denoises y = x_0 + sigma n at a noise level
sigma. Here it is asked like any other pixel prior, about the noise in x_t = sqrt(a) x_0 + sqrt(1 - a) n.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.prior.ddpmpp import DDPMpp, fill_from
from lgap_bench.prior.schedule import BETA_MAX, BETA_MIN

CLASS_NAME = "EDM"
SIGMA_DATA = 0.5
SIGMA_MIN = 0.002  # the least noise of its own sampler; below it the network was hardly trained
STEPS = 1000


class EDM(nn.Module):
    """e(x_t, label): the noise in x_t, (B, 3, side, side) around [-1, 1] -> the same shape.

    A label k, whole or not, stands for time t = (k + 1) / 1000 of the variance-preserving SDE, so that the discrete steps'
    signal is the SDE's own: a = exp(-9.95 t^2 - 0.1 t). With sigma = sqrt((1 - a) / a) and y = x_t / sqrt(a),

        e = (y - D(y, sigma)) / sigma,  D(y, sigma) = c_skip y + c_out F(c_in y, ln(sigma) / 4)     (eq. 7, table 1)

    is written out below without the division by sigma.
    """

    def __init__(self, net: DDPMpp) -> None:
        super().__init__()
        self.net, self.config = net, net.config

    @staticmethod
    def label(t: Any) -> Any:
        """What the network is called with at continuous time t."""
        return STEPS * t - 1

    def forward(self, x: Tensor, labels: Tensor | float) -> Tensor:
        t = (torch.as_tensor(labels, dtype=torch.float64, device=x.device).expand(len(x)) + 1) / STEPS
        a = torch.exp(-0.5 * (BETA_MAX - BETA_MIN) * t**2 - BETA_MIN * t)
        sigma = ((1 - a) / a).sqrt()
        spread = (sigma**2 + SIGMA_DATA**2).sqrt()
        c_noise = sigma.clamp_min(SIGMA_MIN).log() / 4
        y_in, skip, out = (
            each.to(x.dtype)[:, None, None, None]
            for each in (1 / (a.sqrt() * spread), sigma / spread, SIGMA_DATA / spread)
        )
        y = x * y_in  # c_in y
        return skip * y - out * self.net(y, c_noise.float())

    def save(self, folder: Path | str) -> None:
        """Write config.json and the weights to this folder; `from_folder` reads them."""
        self.net.save(folder, CLASS_NAME)


def betas() -> list[float]:
    """The discrete schedule whose products of 1 - beta are the SDE's own signal at (k + 1) / 1000."""
    a = [math.exp(-0.5 * (BETA_MAX - BETA_MIN) * (k / STEPS) ** 2 - BETA_MIN * k / STEPS) for k in range(STEPS + 1)]
    return [1 - a[k + 1] / a[k] for k in range(STEPS)]


def from_folder(folder: Path | str) -> EDM:
    """The network that `save` wrote. ValueError in one line for anything else."""
    return EDM(fill_from(Path(folder), CLASS_NAME)).eval().requires_grad_(False)


def class_name(folder: Path) -> str | None:
    """What a network's config.json says it is."""
    try:
        name = json.loads((folder / "config.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None  # whoever reads the folder says what is wrong with it
    return str(name) if name else None
