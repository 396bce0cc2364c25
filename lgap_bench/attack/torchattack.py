"""CW, Square and EOTPGD through torchattacks 3.5.1 (Kim 2020), on any view; Square in linf through its authors' code.

The package is optional and imported where it is used. Square in linf needs none: the two are bitwise the same there.

Common to all three:
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
from torch import Tensor

from lgap_bench.attack import expectation
from lgap_bench.attack.deepfool import DeepFool as DeepFool  # its address in configs, from when it was the library's
from lgap_bench.attack.expectation import Expectation
from lgap_bench.attack.minimal import compared, require
from lgap_bench.attack.module import ViewModule
from lgap_bench.attack.problem import Problem
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
        require(problem, "cw_torchattacks_c1", norm="l2")
        model = ViewModule(problem, self.draws, handicap=self.kappa, most=self.steps)
        with libraries.fenced():
            found = _repaired_cw()(model, c=self.c, steps=self.steps, lr=self.learning_rate)(model.start, problem.y)
        missed = (found == problem.x).flatten(1).all(1) | problem.view.randomized
        last = torch.where(missed.view(-1, 1, 1, 1), model.last, found)
        return compared(problem, self.select_draws, found, last)


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
            library = libraries.square() if threat.norm == "linf" else libraries.torchattacks().Square
            search: Any = library(
                model, norm=NORMS[threat.norm], eps=threat.eps, n_queries=self.n_queries, p_init=self.p_init
            )
            if problem.keyed:
                (run,) = expectation.square(search, Expectation(problem, self.draws, member=0))
                (found,) = run.candidates
            else:
                search.init_hyperparam(model.start)
                _, found = search.attack_single_run(model.start, problem.y)
        return compared(problem, self.select_draws, found)


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
        require(problem, "eotpgd", norm="linf")
        draws = self.draws if problem.view.randomized else 1
        model, eps = ViewModule(problem, 1, most=self.steps * draws), problem.threat.eps
        with libraries.fenced():
            torch.manual_seed(_seed(problem))
            attack = libraries.torchattacks().EOTPGD(
                model,
                eps=eps,
                alpha=fraction(self.step_size, "attack.step_size", eps),
                steps=self.steps,
                eot_iter=draws,
                random_start=self.random_start,
            )
            found = attack(model.start, problem.y)
        return compared(problem, self.select_draws, found)


class AutoAttack:
    """Refused: torchattacks' class of this name is another attack than the one that tables mean."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ValueError(NOT_AUTOATTACK)


def _repaired_cw() -> Any:
    """The library's loop with the repairs that CW's docstring lists; `kappa` is the model's handicap."""
    base: Any = libraries.torchattacks().CW

    class Repaired(base):  # type: ignore[misc]  # a class of an optional package is known at run time alone
        def inverse_tanh_space(self, x: Tensor) -> Tensor:
            return torch.atanh((2 * x - 1) * INSIDE)

        def f(self, outputs: Tensor, labels: Tensor) -> Tensor:
            # The library looks at the cost only to stop when it rises; minus infinity never does, and has no gradient.
            return (-losses.margin(outputs, labels)).clamp(min=0) - math.inf

    return Repaired


def _seed(problem: Problem) -> int:
    """What the library draws itself: of this cell and this chunk."""
    return derive(problem.seed, "attack", *problem.ids)
