"""Toy defenses whose answers are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier

SIDE = 8


class Linear(nn.Module):
    """Linear logits, so that the distance to the nearest class is closed form."""

    def __init__(self, classes: int = 4, bias: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.weight = nn.Parameter(0.3 * torch.randn(classes, 3 * SIDE * SIDE, generator=generator))
        self.bias = bias
        self.part = nn.Dropout()  # has a mode, and does nothing here

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.weight.T + self.bias

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The l2 distance of each image to the nearest other class."""
        logits = self(x)
        gaps = logits.gather(1, y[:, None]) - logits
        lengths = (self.weight[None] - self.weight[y][:, None]).norm(dim=2)
        return (gaps / lengths.clamp_min(1e-12)).scatter(1, y[:, None], torch.inf).amin(1)


class Jitter(Purifier):
    """Adds noise."""

    randomized = True

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return x + 0.05 * noise.normal(x, "jitter")


class Shift(Purifier):
    """Adds a fixed pattern: its gradient is the identity, so `bpda` is `full`, and `blind` looks at other logits."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return x + 0.02 * torch.linspace(-1, 1, x[0].numel(), dtype=x.dtype).view(x.shape[1:])


class Flicker(Purifier):
    """In a third of its draws it hands on the negative, which is classified wrong: lucky draws for an attacker."""

    randomized = True

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        flip = (noise.uniform(x.flatten(1)[:, :1], "flip") < 1 / 3).view(-1, 1, 1, 1)
        return torch.where(flip, 1 - x, x)


class GradientKiller(Purifier):
    """Hands the image on without its gradient."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return x.detach()


class Poison(Purifier):
    """Its gradient is not a number, or its image, where `forward_too`."""

    def __init__(self, randomized: bool, forward_too: bool = False) -> None:
        super().__init__()
        self.randomized, self.forward_too = randomized, forward_too

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return x * torch.nan if self.forward_too else x + 0 * (x - x.detach()).sqrt()


class Counting(Jitter):
    """Counts the rows it purifies with a gradient, and remembers their keys."""

    def __init__(self, randomized: bool) -> None:
        super().__init__()
        self.randomized = randomized
        self.keys: list[int] = []

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        if torch.is_grad_enabled():
            self.keys += noise.keys
        return super().forward(x, noise) if self.randomized else x
