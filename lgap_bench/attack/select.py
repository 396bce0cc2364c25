"""Which of several attacked images is the worst for a sample: decided on `select` draws that no attack has seen."""

from __future__ import annotations

import torch
from torch import Tensor

from lgap_bench.attack import loss as losses
from lgap_bench.attack.problem import Problem
from lgap_bench.noise import Noise


def damage(problem: Problem, x: Tensor, noise: Noise) -> Tensor:
    """How broken x is: the share of wrong draws, ties decided by the mean margin squashed below one draw's weight."""
    logits = problem.view.query(x, noise)
    draws = len(logits)
    rate = (logits.argmax(-1) != problem.y).to(x.dtype).mean(0)
    margin = torch.stack([losses.margin(each, problem.y) for each in logits]).mean(0)
    return rate + 0.4 / draws * torch.tanh(margin / 10)


class Worst:
    """The worst image of every sample among those offered, all compared on the same draws.

    Attributes:
        x: the images (B, C, H, W); the clean ones until something is offered.
    """

    def __init__(self, problem: Problem, noise: Noise) -> None:
        self.problem, self.noise = problem, noise
        self.x = problem.x.clone()
        self.damage = torch.full((len(self.x),), -torch.inf, dtype=self.x.dtype, device=self.x.device)

    def offer(self, x: Tensor) -> None:
        """Keep the images of x that do more damage than what is held."""
        found = damage(self.problem, x, self.noise)
        worse = found > self.damage
        self.x[worse], self.damage[worse] = x[worse], found[worse]
