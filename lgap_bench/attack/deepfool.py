"""DeepFool (Moosavi-Dezfooli et al. 2016, algorithm 2), l2: steps to the nearest boundary of the linearised classifier.

Of this project, since torchattacks overshoots each step instead of their sum: the last one ends just before a boundary
that curves away, and more than half of its images are not wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lgap_bench.attack.minimal import compared, require
from lgap_bench.attack.module import ViewModule
from lgap_bench.attack.problem import Problem

NUDGE = 1e-4  # l2 length that the authors' code adds to every step, which would vanish as the boundary comes near


@dataclass(frozen=True)
class DeepFool:
    """x' = x + (1 + eta) * sum of steps; a step is |f_k| / ||w_k|| long along w_k, for the class k where that is least.

    f_k is the logit of k minus the label's, w_k its gradient, both at x' (as in the authors' code; the paper overshoots
    once, at the end) and both means over `draws`. An image leaves once x' is wrong: on a randomized view when
    `select_draws` fresh draws are all wrong, so that no lucky one ends it. Where no class has a gradient it stays
    where it is. The perturbation found is the smallest, whatever the budget; an image beyond that is projected to the ball's
    edge, and kept where it does more damage than the clean one. A gradient that is not finite raises FloatingPointError.

    Args:
        steps: steps at most.
        overshoot: eta, the share by which the sum of steps is stretched.
        candidates: how many wrong classes are tried, the likeliest on the clean image; each costs a backward pass a step.
        draws: EOT draws whose mean logits are attacked; a deterministic view takes one.
        select_draws: fresh draws that let an image leave, and on which it is compared, under a randomized view.
    """

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 9
    draws: int = 1
    select_draws: int = 4

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball."""
        require(problem, "deepfool", norm="l2")
        return compared(problem, self.select_draws, self.minimum(problem))

    def minimum(self, problem: Problem) -> Tensor:
        """The images (B, C, H, W) in [0, 1] before any budget bounds them."""
        x, total = problem.x.clone(), torch.zeros_like(problem.x)
        rivals = _likeliest_wrong(problem, self.candidates, self.draws)
        rows = list(range(len(x)))
        for step in range(1, self.steps + 1):
            left = self._left(problem.take(rows), x[rows], step)
            rows = [row for row, gone in zip(rows, left, strict=True) if not gone]
            if not rows:
                break
            model = ViewModule(problem.take(rows), self.draws, most=1 + self.steps)
            model.calls = step  # noise by step, so that it does not hang on who has left
            move = _step(model, x[rows], problem.y[rows], rivals[rows])
            total[rows] += move
            x[rows] = (problem.x[rows] + (1 + self.overshoot) * total[rows]).clamp(0, 1)
        return x

    def _left(self, part: Problem, x: Tensor, step: int) -> list[bool]:
        """Whether each image is wrong on all fresh draws; logits that are not finite are for the next step to name."""
        draws = self.select_draws if part.view.randomized else 1
        logits = part.view.query(x, part.stream("select").draws(draws, 1, step))
        wrong = ~part.task.right(logits, part.y) & torch.isfinite(logits).all(-1)
        left: list[bool] = wrong.all(0).tolist()
        return left


@torch.no_grad()
def _likeliest_wrong(problem: Problem, count: int, draws: int) -> Tensor:
    """The wrong classes of largest logit on the clean image, (B, at most `count`)."""
    logits = ViewModule(problem, draws)(problem.x).scatter(1, problem.y[:, None], -torch.inf)
    return logits.topk(min(count, logits.shape[1] - 1)).indices


def _step(model: ViewModule, x: Tensor, y: Tensor, rivals: Tensor) -> Tensor:
    """The step (B, C, H, W) over the nearest boundary of the classifier linearised at x; zero where nothing has a gradient.

    Args:
        rivals: wrong classes (B, candidates).
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(x)
    nearest, step = torch.full_like(logits[:, 0], torch.inf), torch.zeros_like(x)
    for number in range(rivals.shape[1]):
        with torch.enable_grad():
            f = (logits.gather(1, rivals[:, number, None]) - logits.gather(1, y[:, None])).squeeze(1)
        (w,) = torch.autograd.grad(f.sum(), x, retain_graph=number + 1 < rivals.shape[1])
        length = w.flatten(1).norm(dim=1)
        distance = torch.where(length > 0, f.detach().abs() / length, torch.inf)
        # No boundary matters beyond the diagonal of [0, 1]; a tiny gradient would put one at infinity.
        move = (distance.clamp(max=x[0].numel() ** 0.5) + NUDGE) / length.clamp_min(torch.finfo(w.dtype).tiny)
        nearer = distance < nearest
        nearest = torch.where(nearer, distance, nearest)
        step = torch.where(nearer.view(-1, 1, 1, 1), move.view(-1, 1, 1, 1) * w, step)
    return step
