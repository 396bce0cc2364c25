"""What attacks that look for the smallest perturbation share: what they need of a problem, and how a budget bounds them."""

from __future__ import annotations

from torch import Tensor

from lgap_bench.attack.problem import Problem
from lgap_bench.attack.select import WorstCase
from lgap_bench.attack.view import Query


def compared(problem: Problem, select_draws: int, *candidates: Tensor) -> Tensor:
    """The most damaging, per sample, of the clean image and the candidates (B, C, H, W) projected into the ball.

    They are compared on the same `select` draws, which no attack has seen; a deterministic view takes one.
    """
    draws = select_draws if problem.view.randomized else 1
    worst = WorstCase(problem, problem.stream("select").draws(draws))
    for candidate in (problem.x, *candidates):
        worst.offer(problem.threat.project(candidate.to(problem.x.dtype), problem.x))
    return worst.x


def require(problem: Problem, name: str, norm: str) -> None:
    """Raise ValueError for a wrong norm or a view without gradient: for those who build a Problem in Python.

    A config is refused for the same before torch is imported.
    """
    if problem.threat.norm != norm:
        raise ValueError(f"attack={name} needs threat.norm={norm}, got {problem.threat.norm}: choose another threat")
    if isinstance(problem.view, Query):
        raise ValueError(f"attack={name} needs a gradient, and view=query has none: choose view=blind, bpda or full")
