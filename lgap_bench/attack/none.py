"""No attack: the cell measures the defense on clean images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lgap_bench.attack.problem import Problem


@dataclass(frozen=True)
class NoAttack:
    """Hands every image back as it is."""

    def __call__(self, problem: Problem) -> Tensor:
        """The clean images (B, C, H, W)."""
        return problem.x.clone()
