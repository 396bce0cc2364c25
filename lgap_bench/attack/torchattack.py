"""CW, DeepFool, Square and EOTPGD through torchattacks 3.5.1 (Kim 2020), on any view.

Common to all four:
- The library holds a small module around `problem.view`: it switches modes on that module alone, and its flawed
  handling of normalisation is never entered (the classifier normalises inside).
- The defense's noise belongs to the sample, with the count of the library's calls as its step. What the library draws
  itself (starts, squares) is one stream per chunk, from the cell's seed and the chunk's ids, behind a fence.
- What the library returns is projected into the ball, and kept where it does more damage than the clean image: on a
  randomized view that is judged on `select` draws that no attack has seen.
A gradient that is not finite raises FloatingPointError; a wrong norm or view raises ValueError.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torchattacks
from torch import Tensor

from lgap_bench.attack import expectation
from lgap_bench.attack.expectation import Expectation
from lgap_bench.attack.module import ViewModule
from lgap_bench.attack.problem import Problem
from lgap_bench.attack.select import WorstCase
from lgap_bench.attack.view import Query
from lgap_bench.cell.values import fraction
from lgap_bench.noise import derive
from lgap_bench.runtime import libraries
from lgap_bench.runtime.libraries import NOT_AUTOATTACK
from lgap_bench.task import loss as losses

NORMS = {"linf": "Linf", "l2": "L2"}
INSIDE = 1 - 1e-6  # CW's tanh reaches 0 and 1 at infinity only; the paper's code stays inside by as much


@dataclass(frozen=True)
class CW:
    """Carlini and Wagner (2017), l2: minimise |x' - x|^2 + c * max(z_label - max z_other, -kappa), x' = (tanh w + 1) / 2.

    Minimises the norm, so an image beyond the budget is projected to the ball's edge. Four repairs of the library's
    version: black and white pixels, where its atanh is infinite and never moves, start just inside; logits below zero
    are not mistaken for zero; `kappa` decides also which image counts as found (the nearest wrong one counts in the
    library, whatever its margin); no early stop, since one image's cost would end the attack on all of its chunk. As in
    the library there is no search for c. Where nothing was found, and wherever the view is randomized (one lucky draw
    makes an image count as found there), the last iterate is a candidate beside the library's answer.

    Args:
        c: weight of the margin's term against the squared l2 norm.
        kappa: margin in logits that a found image must have.
        steps: Adam's steps.
        learning_rate: Adam's, in the space of w.
        draws: EOT draws whose mean logits the library sees; a deterministic view takes one.
        select_draws: fresh draws on which candidates are compared under a randomized view.
    """

    c: float = 1.0
    kappa: float = 0.0
    steps: int = 50
    learning_rate: float = 0.01
    draws: int = 1
    select_draws: int = 4

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball."""
        _require(problem, "cw", norm="l2")
        model = ViewModule(problem, self.draws, handicap=self.kappa)
        with libraries.fenced():
            found = _CW(model, c=self.c, steps=self.steps, lr=self.learning_rate)(model.start, problem.y)
        missed = (found == problem.x).flatten(1).all(1) | problem.view.randomized
        last = torch.where(missed.view(-1, 1, 1, 1), model.last, found)
        return _compared(problem, self.select_draws, found, last)


@dataclass(frozen=True)
class DeepFool:
    """Moosavi-Dezfooli et al. (2016), l2: steps to the nearest class boundary of the linearised classifier.

    Minimises the norm, so an image beyond the budget is projected to the ball's edge. Every step takes a gradient for
    each class, image by image: the library is called for one image at a time, so that its noise is the sample's. An
    image leaves a randomized view only when `select_draws` fresh draws are all wrong, not after the one draw of the
    library; else it goes on until `steps` are spent. Where all gradients vanish the library divides by zero: there the
    image stays at the last point that it reached.

    Args:
        steps: steps at most.
        overshoot: each step goes this share beyond the boundary (the library's; the paper's scales the sum of steps).
        draws: EOT draws whose mean logits the library sees; a deterministic view takes one.
        select_draws: fresh draws that let an image leave, and on which it is compared, under a randomized view.
    """

    steps: int = 50
    overshoot: float = 0.02
    draws: int = 1
    select_draws: int = 4

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball."""
        _require(problem, "deepfool", norm="l2")
        found = []
        for i in range(len(problem.x)):
            one = problem.take([i])
            model = ViewModule(one, self.draws)
            with libraries.fenced():
                attack = _DeepFool(model, self.select_draws, steps=self.steps, overshoot=self.overshoot)
                found.append(attack(model.start, one.y))
        return _compared(problem, self.select_draws, torch.cat(found))


@dataclass(frozen=True)
class Square:
    """Andriushchenko et al. (2020), linf or l2: random search for a lower margin with square patches; no gradient.

    The library's search is called without its wrapper, which hands an image back untouched unless one draw of it is
    wrong: the image of the lowest margin is returned. On a randomized view the search lowers the mean margin over
    `draws`, the same ones at every query, and no draw ends it (lgap_bench/attack/expectation.py); each query then costs
    `draws` passes. The squares are one stream per chunk, so those that an image meets depend on its chunk.

    Args:
        n_queries: iterations of the search.
        p_init: share of the image's area that the first squares cover.
        draws: EOT draws per query; a deterministic view takes one. With few of them the search fits those draws alone.
        select_draws: fresh draws on which the image is compared with the clean one under a randomized view.
    """

    n_queries: int = 5000
    p_init: float = 0.8
    draws: int = 20
    select_draws: int = 4

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball."""
        model, threat = ViewModule(problem, 1), problem.threat
        with libraries.fenced(), torch.no_grad():
            torch.manual_seed(_seed(problem))
            search: Any = torchattacks.Square(
                model, norm=NORMS[threat.norm], eps=threat.eps, n_queries=self.n_queries, p_init=self.p_init
            )
            if problem.view.randomized:
                (run,) = expectation.square(search, Expectation(problem, self.draws, member=0))
                (found,) = run.candidates
            else:
                search.init_hyperparam(model.start)
                _, found = search.attack_single_run(model.start, problem.y)
        return _compared(problem, self.select_draws, found)


@dataclass(frozen=True)
class EOTPGD:
    """PGD on the sum of the gradients of `draws` passes (Zimmermann 2019), linf, from a random start; the last iterate.

    The random start is drawn from the chunk's stream, the defense's noise from the sample's.

    Args:
        steps: gradient steps.
        step_size: in [0, 1] pixel units: a number, "2/255" or "eps/4".
        draws: EOT draws per gradient; a deterministic view takes one.
        random_start: begin at a uniform point of the ball instead of the clean image.
        select_draws: fresh draws on which the last iterate is compared with the clean image under a randomized view.
    """

    steps: int = 10
    step_size: str | float = "eps/4"
    draws: int = 2
    random_start: bool = True
    select_draws: int = 4

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball."""
        _require(problem, "eotpgd", norm="linf")
        model, eps = ViewModule(problem, 1), problem.threat.eps
        with libraries.fenced():
            torch.manual_seed(_seed(problem))
            attack = torchattacks.EOTPGD(
                model,
                eps=eps,
                alpha=fraction(self.step_size, "attack.step_size", eps),
                steps=self.steps,
                eot_iter=self.draws if problem.view.randomized else 1,
                random_start=self.random_start,
            )
            found = attack(model.start, problem.y)
        return _compared(problem, self.select_draws, found)


class AutoAttack:
    """Refused: torchattacks' class of this name is another attack than the one that tables mean."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ValueError(NOT_AUTOATTACK)


class _CW(torchattacks.CW):
    """The library's loop with the repairs that CW's docstring lists; `kappa` is the model's handicap."""

    def inverse_tanh_space(self, x: Tensor) -> Tensor:
        return torch.atanh((2 * x - 1) * INSIDE)

    def f(self, outputs: Tensor, labels: Tensor) -> Tensor:
        # The library looks at the cost only to stop when it rises; minus infinity never does, and has no gradient.
        return (-losses.margin(outputs, labels)).clamp(min=0) - math.inf


class _DeepFool(torchattacks.DeepFool):
    """The library's loop for one image, left on fresh draws and where no direction exists."""

    def __init__(self, model: ViewModule, confirm_draws: int, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.confirm_draws = confirm_draws

    def _forward_indiv(self, image: Tensor, label: Tensor) -> tuple[bool, Tensor, Tensor]:
        leaves, predicted, moved = super()._forward_indiv(image, label)
        moved = moved.detach()
        if leaves:
            return self._confirmed(moved), predicted, moved
        if not bool(torch.isfinite(moved).all()):
            return True, predicted, image.detach()
        return False, predicted, moved

    def _confirmed(self, image: Tensor) -> bool:
        problem = self.model.problem
        if not problem.view.randomized:
            return True
        fresh = problem.stream("select").draws(self.confirm_draws, 1, self.model.calls)
        return bool((problem.view.query(image, fresh).argmax(-1) != problem.y).all())


def _compared(problem: Problem, select_draws: int, *candidates: Tensor) -> Tensor:
    """The most damaging of the clean image and the projected candidates."""
    draws = select_draws if problem.view.randomized else 1
    worst = WorstCase(problem, problem.stream("select").draws(draws))
    for candidate in (problem.x, *candidates):
        worst.offer(problem.threat.project(candidate.to(problem.x.dtype), problem.x))
    return worst.x


def _require(problem: Problem, name: str, norm: str) -> None:
    """What a config is refused for before torch is imported, for those who build a Problem in Python."""
    if problem.threat.norm != norm:
        raise ValueError(f"attack={name} needs threat.norm={norm}, got {problem.threat.norm}: choose another threat")
    if isinstance(problem.view, Query):
        raise ValueError(f"attack={name} needs a gradient, and view=query has none: choose view=blind, bpda or full")


def _seed(problem: Problem) -> int:
    """What the library draws itself: of this cell and this chunk."""
    return derive(problem.seed, "attack", *problem.ids)
