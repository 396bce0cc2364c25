"""The view `transfer`: the attacker has another classifier, and knows neither the defense's nor its purifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.attack.view import MAX_ROWS, Blind
from lgap_bench.defense import Defense
from lgap_bench.noise import Noise


class Transfer(Blind):
    """Logits and gradient of a classifier of the attacker's own; images that fool it are tried on the defense.

    Args:
        classifier: of the same classes.
    """

    def __init__(self, defense: Defense, classifier: nn.Module, max_rows: int = MAX_ROWS) -> None:
        super().__init__(defense, max_rows)
        like: Any = next(defense.parameters(), None)
        other = classifier if like is None else classifier.to(device=like.device, dtype=like.dtype)
        self.other = other.eval().requires_grad_(False)

    @property
    def randomized(self) -> bool:
        """The attacker's own classifier draws nothing."""
        return False

    def logits(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """Logits (B, classes) of the attacker's classifier; differentiable in x."""
        held = next((p.dtype for p in self.other.parameters()), x.dtype)
        found: Tensor = self.other(x.to(held))
        return found.to(x.dtype)

    def _forward(self, x: Tensor, noise: Noise, observed: list[str] | None) -> Tensor:
        with torch.no_grad():
            return self.logits(x, noise)
