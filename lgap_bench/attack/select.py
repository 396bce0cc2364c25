"""Which of several attacked images counts: the worst for each sample, compared on noise that no attack has seen.

Under a randomized defense an image is right or wrong by the draw. An attack that keeps the highest of many noisy losses
keeps lucky draws. So candidates are compared on draws of the role `select`, and scored later on draws of the role `score`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lgap_bench.attack.problem import Problem
from lgap_bench.noise import Noise

FIRST_CONFIRMED = 4  # draws of the first check of an image that seems wrong; each further check doubles their number


def wrongness(problem: Problem, x: Tensor, noise: Noise) -> Tensor:
    """How wrong each image of x is, (B,): the share of draws on which it is wrong, with the margin to decide ties.

    A higher number is worse for the defense. Images with equally many wrong draws are ordered by their mean margin.

    Args:
        noise: draws * B keys, draw-major.
    """
    logits = problem.view.query(x, noise)
    draws = len(logits)
    rate = (~problem.task.right(logits, problem.y)).to(x.dtype).mean(0)
    margin = torch.stack([problem.task.margin(each, problem.y) for each in logits]).mean(0)
    # tanh is in (-1, 1) and one draw weighs 1 / draws: at 0.4 / draws no margin outweighs a wrong draw.
    return rate + 0.4 / draws * torch.tanh(margin / 10)


class WorstCase:
    """The worst image of every sample among those offered, all compared on the same draws.

    The same draws for all: with fresh ones the winner of many comparisons would be the luckiest image.

    Attributes:
        x: the images (B, C, H, W); the clean ones until something is offered.
    """

    def __init__(self, problem: Problem, noise: Noise) -> None:
        self.problem, self.noise = problem, noise
        self.x = problem.x.clone()
        self.wrongness = torch.full((len(self.x),), -torch.inf, dtype=self.x.dtype, device=self.x.device)

    @property
    def always_wrong(self) -> Tensor:
        """Whether the kept image is wrong on every draw, (B,)."""
        draws = len(self.noise) // len(self.x)
        # One right draw costs 1 / draws, and the margin counts less than 0.4 / draws.
        return self.wrongness > 1 - 0.5 / draws

    def offer(self, x: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Keep each image of x that is worse than the one kept so far.

        Args:
            x: one image per sample, or per entry of `rows` where that is given.
            rows: the samples to which the images belong.

        Returns the samples whose image changed, an index tensor.
        """
        index = list(range(len(self.x)) if rows is None else rows)
        draws = len(self.noise) // len(self.x)
        noise = self.noise.take([draw * len(self.x) + i for draw in range(draws) for i in index])
        found = wrongness(self.problem.take(index), x, noise)
        held = torch.tensor(index, device=self.x.device)
        worse = found > self.wrongness[held]
        self.x[held[worse]], self.wrongness[held[worse]] = x[worse], found[worse]
        return held[worse]


def confirmed_wrong(problem: Problem, x: Tensor, rows: Sequence[int], draws: int, restart: int, step: int) -> list[int]:
    """The samples among `rows` whose image in x is wrong on every one of `draws` fresh `select` draws.

    Attacks on a randomized view spend no more steps on these. An image that is right in a tenth of all draws passes a
    check of 32 draws with probability 0.03.

    Args:
        x: images of all samples (B, C, H, W); those of `rows` are looked at.
        draws: 0 confirms nothing, so every step is spent on every sample.
        restart, step: name the noise; a pair that was used before gives the same draws.
    """
    candidates, checked = list(rows) if draws else [], 0
    # In growing portions: one right draw ends a sample's check, and most are right on one of the first few.
    while candidates and checked < draws:
        count = min(FIRST_CONFIRMED + checked, draws - checked)  # 4, 8, 16, ...
        part = problem.take(candidates)
        fresh = part.stream("select").draws(count, restart, step, first=checked)
        wrong = (~part.task.right(part.view.query(x[candidates], fresh), part.y)).all(0).tolist()
        candidates = [row for row, yes in zip(candidates, wrong, strict=True) if yes]
        checked += count
    return candidates
