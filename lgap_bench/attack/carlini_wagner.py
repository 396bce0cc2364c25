"""Carlini and Wagner (2017, section VI), l2: the smallest perturbation by Adam in tanh space and a search for c.

Of this project, since the library's has no search for c and starts where tanh is flat (attack=cw_torchattacks_c1).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lgap_bench.attack.minimal import compared, require
from lgap_bench.attack.module import ViewModule
from lgap_bench.attack.problem import Problem
from lgap_bench.task import loss as losses

# tanh reaches 0 and 1 at infinity only. The authors' code stays inside by 1e-6, where tanh is so flat that Adam spends 60
# steps of 0.1 on bringing a black pixel back; here w ends at 2.6, a pixel 0.005 from black or white, and only to begin with.
INSIDE = 0.99
WIDEN = 10.0  # the authors': c grows by this while nothing is found, and is halved between bounds afterwards


@dataclass(frozen=True)
class CarliniWagner:
    """Minimises |x' - x|^2 + c * f(x') over w, x' = (tanh w + 1) / 2, f = max(Z_label - max Z_other, -kappa).

    The search for c is each image's own: where a run found an image that is wrong by more than kappa, the next has a
    smaller c, else a larger one; the image of smallest norm over all runs and steps is the answer. An image beyond the
    budget is projected to the ball's edge. Unlike the paper's, a run begins where the last ones' smallest image lies, and
    until there is one at a random point of the ball: from the clean image alone some end in a minimum beyond it.

    On a randomized view Z are means over `draws`, and a run counts as a success when the image that it found is wrong on
    all of `select_draws` fresh draws; every run's image and last iterate are candidates, compared with the clean image
    on other fresh draws. There `kappa` above 0 pays: the smallest perturbation barely crosses a boundary that moves.
    A gradient that is not finite raises FloatingPointError.

    Args:
        c: where the search begins, weight of f against the squared l2 norm.
        search: runs, each with a c of its own; 1 is no search.
        kappa: margin in logits that a found image must have.
        steps: Adam's steps in a run.
        learning_rate: Adam's, in the space of w.
        draws: EOT draws whose mean logits are attacked; a deterministic view takes one.
        select_draws: fresh draws that decide under a randomized view.
    """

    c: float = 10.0
    search: int = 5
    kappa: float = 0.0
    steps: int = 100
    learning_rate: float = 0.1
    draws: int = 1
    select_draws: int = 4

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball."""
        require(problem, "cw", norm="l2")
        return compared(problem, self.select_draws, *self.candidates(problem))

    def candidates(self, problem: Problem) -> list[Tensor]:
        """The images (B, C, H, W) in [0, 1] before any budget bounds them: the smallest found, then those of every run.

        A deterministic view needs no more than the smallest found, or the last iterate where nothing was.
        """
        model = ViewModule(problem, self.draws, handicap=self.kappa, most=self.search * self.steps)
        c = Search(torch.full_like(problem.x[:, 0, 0, 0], self.c))
        near = problem.threat.local(problem.x)
        smallest = Smallest(near.random(problem.x, problem.stream("attack").draws(1, 0, -1)))
        others: list[Tensor] = []
        for number in range(self.search):
            run = self._run(model, c.value, smallest.x)
            success = run.norm.isfinite()
            if problem.view.randomized:
                others += [run.x, model.last]
                success &= _always_wrong(problem, run.x, self.select_draws, number)
            smallest.offer(run.x, torch.where(success, run.norm, torch.inf))
            c.next(success)
        missed = smallest.norm.isinf().view(-1, 1, 1, 1)
        return [torch.where(missed, model.last, smallest.x), *others]

    def _run(self, model: ViewModule, c: Tensor, start: Tensor) -> Smallest:
        """Adam from `start` (B, C, H, W) under each image's c (B,); the smallest iterate that is wrong by more than kappa."""
        problem = model.problem
        w = torch.atanh((2 * start - 1) * INSIDE).requires_grad_(True)
        adam = torch.optim.Adam([w], lr=self.learning_rate)
        found = Smallest(problem.x)
        for _ in range(self.steps):
            with torch.enable_grad():
                x = (w.tanh() + 1) / 2
                margin = losses.margin(model(x), problem.y)  # kappa is added to the label's logit by the model
                square = (x - problem.x).flatten(1).square().sum(1)
                cost = square + c * (-margin).clamp(min=0)
                adam.zero_grad()
                cost.sum().backward()
            found.offer(x.detach(), torch.where(margin > 0, square, torch.inf).detach().sqrt())
            adam.step()
        return found


class Smallest:
    """The image of smallest norm among those offered, per sample.

    Attributes:
        x: the images (B, C, H, W); those that it begins with until something is offered.
        norm: their l2 norms (B,), infinite where nothing was offered.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x.clone()
        self.norm = torch.full_like(x[:, 0, 0, 0], torch.inf)

    def offer(self, x: Tensor, norm: Tensor) -> None:
        """Take the images of x whose norm (B,) is smaller than what is held; infinite is no offer."""
        better = norm < self.norm
        self.x[better], self.norm[better] = x[better], norm[better]


@dataclass
class Search:
    """The weight c of each image, (B,), and the bounds between which it is looked for."""

    value: Tensor
    low: Tensor = field(init=False)
    high: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.low, self.high = torch.zeros_like(self.value), torch.full_like(self.value, torch.inf)

    def next(self, success: Tensor) -> None:
        """Halve the interval that is left after a run's success (B,); without an upper bound c grows tenfold."""
        self.high = torch.where(success, self.value.minimum(self.high), self.high)
        self.low = torch.where(success, self.low, self.value.maximum(self.low))
        self.value = torch.where(self.high.isinf(), self.value * WIDEN, (self.low + self.high) / 2)


def _always_wrong(problem: Problem, x: Tensor, draws: int, number: int) -> Tensor:
    """Whether x is wrong on all of so many fresh draws of the run of that number, (B,)."""
    logits = problem.view.query(x, problem.stream("select").draws(draws, 1, number))
    return (~problem.task.right(logits, problem.y)).all(0)
