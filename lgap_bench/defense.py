"""A defense: purifier and classifier as one module from images in [0, 1] to logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier


class Defense(nn.Module):
    """classifier(purifier(x)); weights frozen and in eval mode, so that gradients cost only what the input needs."""

    def __init__(self, purifier: Purifier, classifier: nn.Module) -> None:
        super().__init__()
        self.purifier, self.classifier = purifier, classifier
        self.eval().requires_grad_(False)

    @property
    def randomized(self) -> bool:
        """Whether two calls with different noise may differ."""
        return self.purifier.randomized

    def observe(self, x: Tensor, noise: Noise) -> list[str] | None:
        """What the purifier reads off x without gradient (LGAP: captions), one entry per row."""
        with torch.no_grad():
            return self.purifier.observe(x.detach(), noise)

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """Logits (B, classes) of the purified images; differentiable in x."""
        return self.classifier(self.purifier(x, noise, observed))
