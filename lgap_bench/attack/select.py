"""Which of several attacked images is the worst for a sample: decided on `select` draws that no attack has seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lgap_bench.attack.problem import Problem
from lgap_bench.noise import Noise

FIRST_CONFIRMED = 4  # draws of the first look at a sample that seems broken; twice as many at every next one


def wrongness(problem: Problem, x: Tensor, noise: Noise) -> Tensor:
    """How broken x is: the share of wrong draws, ties decided by the mean margin squashed below one draw's weight."""
    logits = problem.view.query(x, noise)
    draws = len(logits)
    rate = (~problem.task.right(logits, problem.y)).to(x.dtype).mean(0)
    margin = torch.stack([problem.task.margin(each, problem.y) for each in logits]).mean(0)
    return rate + 0.4 / draws * torch.tanh(margin / 10)


class WorstCase:
    """The worst image of every sample among those offered, all compared on the same draws.

    Attributes:
        x: the images (B, C, H, W); the clean ones until something is offered.
    """

    def __init__(self, problem: Problem, noise: Noise) -> None:
        self.problem, self.noise = problem, noise
        self.x = problem.x.clone()
        self.wrongness = torch.full((len(self.x),), -torch.inf, dtype=self.x.dtype, device=self.x.device)

    @property
    def always_wrong(self) -> Tensor:
        """Whether the image that is held is wrong on every one of these draws, (B,)."""
        draws = len(self.noise) // len(self.x)
        # One right draw costs 1 / draws, and the margin counts less than 0.4 / draws.
        return self.wrongness > 1 - 0.5 / draws

    def offer(self, x: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Keep the images of x, all or those of some `rows`, that do more damage than what is held; the rows that changed."""
        index = list(range(len(self.x)) if rows is None else rows)
        draws = len(self.noise) // len(self.x)
        noise = self.noise.take([draw * len(self.x) + i for draw in range(draws) for i in index])
        found = wrongness(self.problem.take(index), x, noise)
        held = torch.tensor(index, device=self.x.device)
        worse = found > self.wrongness[held]
        self.x[held[worse]], self.wrongness[held[worse]] = x[worse], found[worse]
        return held[worse]


def confirmed_wrong(problem: Problem, x: Tensor, rows: Sequence[int], draws: int, restart: int, step: int) -> list[int]:
    """Those of the samples `rows` whose images in x are wrong on all of so many fresh `select` draws; of 0 draws none.

    A sample that is may leave an attack on a randomized view. One that is right in a tenth of all draws passes 32 with
    probability 0.03, at each check. The first right draw ends a check, so that most end at once.
    """
    due, asked = list(rows) if draws else [], 0
    while due and asked < draws:
        count = min(FIRST_CONFIRMED + asked, draws - asked)  # 4, 8, 16, ...
        part = problem.take(due)
        fresh = part.stream("select").draws(count, restart, step, first=asked)
        fooled = (~part.task.right(part.view.query(x[due], fresh), part.y)).all(0).tolist()
        due = [row for row, yes in zip(due, fooled, strict=True) if yes]
        asked += count
    return due
