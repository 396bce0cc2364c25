"""Uniform noise in the ball: the weakest attack, a control that every other attack has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lgap_bench.attack.problem import Problem
from lgap_bench.attack.select import WorstCase


@dataclass(frozen=True)
class RandomNoise:
    """Uniform points of the ball, clipped to [0, 1]: those from which PGD's random restarts begin.

    Args:
        tries: points per image; of several the worst is kept, judged on `select` draws.
        select_draws: fresh draws on which several are compared; a deterministic view takes one.
    """

    tries: int = 1
    select_draws: int = 4

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball."""
        points = (
            problem.threat.random(problem.x, problem.stream("attack").draws(1, number, -1))
            for number in range(self.tries)
        )
        if self.tries == 1:
            return next(points)
        draws = self.select_draws if problem.view.randomized else 1
        worst = WorstCase(problem, problem.stream("select").draws(draws))
        for point in points:
            worst.offer(point)
        return worst.x
