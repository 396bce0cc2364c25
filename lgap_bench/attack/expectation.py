"""AutoAttack's members on a randomized view: the library's inner loops, fed with means over EOT draws.

The library decides by single draws which samples to attack, when a sample counts as broken, and which iterate to return. On a
randomized defense each of these decisions lets samples count as robust that one unlucky draw ended. So its inner loops are
called directly here, on every sample that is left: each row is a known sample, and each number that a loop sees is a mean over
the draws (Athalye et al. 2018).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lgap_bench.attack.problem import Loss, Problem, estimate
from lgap_bench.noise import Noise
from lgap_bench.task import loss as losses

# Calls reserved for each target of FAB, which makes as many as it needs: the next target's noise must not depend on that.
CALLS = 2**20


@dataclass
class Expectation:
    """A randomized view with the methods that the library calls on its models, all of them means over `draws`.

    Noise is keyed by sample id, with the member's number as the restart and the count of calls as the step.

    Attributes:
        problem: the samples that are still attacked.
        draws: EOT draws behind every number that the library sees.
        member: the member's number in its ensemble.
        calls: how often noise was asked for.
        rows: their places in the problem that it began with.
        told: calls of the view, as whoever watches is told.
    """

    problem: Problem
    draws: int
    member: int
    calls: int = 0
    rows: list[int] = field(default_factory=list)
    told: int = 0

    def __post_init__(self) -> None:
        self.rows = list(range(len(self.problem.x)))
        self.draws = self.draws if self.problem.view.randomized else 1

    def drop(self, rows: Collection[int]) -> None:
        """Go on without these samples. Noise is keyed by sample, so that of the others stays the same."""
        stay = [place for place, row in enumerate(self.rows) if row not in rows]
        self.rows = [self.rows[place] for place in stay]
        self.problem = self.problem.take(stay)

    @property
    def x(self) -> Tensor:
        """The clean images as the library wants them: float32, contiguous, and a copy that it may write to."""
        return self.problem.x.float().contiguous().clone()

    def noise(self, draws: int) -> Noise:
        """Fresh `attack` noise at every call."""
        self.calls += 1
        return self.problem.stream("attack").draws(draws, self.member, self.calls)

    def correct_once(self, x: Tensor) -> Tensor:
        """Whether each image is classified right on a single draw, (B,): what the library itself goes by."""
        return self._query(x, 1)[0].argmax(-1) == self.problem.y

    def start(self) -> Tensor:
        """APGD's random start, a direction scaled to the edge of the ball; by sample, not from the global generator."""
        noise, x, threat = self.noise(1), self.x, self.problem.threat
        direction = 2 * noise.uniform(x, "start") - 1 if threat.norm == "linf" else noise.normal(x, "start")
        length = threat.length(direction).clamp_min(1e-12).view(-1, *([1] * (x.dim() - 1)))
        return x + threat.eps * direction / length

    def logits_label_first(self, x: Tensor) -> Tensor:
        """Mean logits (B, classes) with the label's on top, so that the library's k-th class is never the label."""
        self._tell()
        return self._query(x, self.draws).mean(0).scatter(1, self.problem.y[:, None], torch.inf)

    # What APGD calls where its `is_tf_model` is set: (logits of the last draw, mean loss (B,), mean gradient).
    def get_logits_loss_grad_xent(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy."""
        return self._estimate(x, losses.cross_entropy)

    def get_logits_loss_grad_dlr(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Difference of logits ratio."""
        return self._estimate(x, losses.dlr)

    def get_logits_loss_grad_target(self, x: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Targeted difference of logits ratio."""
        return self._estimate(x, _paired(losses.targeted_dlr), torch.stack([y, target], 1))

    # What FAB calls.
    def most_frequent_label(self, x: Tensor) -> Tensor:
        """Most frequent prediction, (B,); clean images pass as right, so that FAB's filter keeps every sample."""
        if torch.equal(x, self.x):
            return self.problem.y
        self._tell()
        return self._query(x, self.draws).argmax(-1).mode(0).values

    def logit_difference(self, x: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Target's logit minus the label's (B, 1), and its gradient (B, 1, C, H, W)."""
        _, value, gradient = self._estimate(x, _paired(_logit_difference), torch.stack([y, target], 1))
        return value[:, None], gradient[:, None]

    # What Square calls.
    def margin_and_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean margin as Square's loss, over the same draws at every query.

        The search keeps the lowest loss that it has seen and never measures it again: with fresh draws one lucky query
        would turn every later one away. The margin by which it would stop stays positive, so that no draw ends a sample.
        """
        self._tell()
        self.calls += 1
        noise = self.problem.stream("attack").draws(self.draws, self.member, 0)
        logits = self.problem.view.query(x.to(self.problem.x.dtype), noise).float()
        margin = torch.stack([losses.margin(each, y) for each in logits]).mean(0)
        if not bool(torch.isfinite(margin).all()):
            first = self.problem.ids[int((~torch.isfinite(margin)).nonzero()[0])]
            raise FloatingPointError(f"the logits of sample {first} are not finite")
        return torch.ones_like(margin), -margin

    def _tell(self) -> None:
        self.told += 1
        self.problem.tell("call", self.told, None)

    def _query(self, x: Tensor, draws: int) -> Tensor:
        return self.problem.view.query(x.to(self.problem.x.dtype), self.noise(draws)).float()

    def _estimate(self, x: Tensor, loss: Loss, targets: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        self._tell()
        at = estimate(self.problem, x.detach().to(self.problem.x.dtype), self.noise(self.draws), loss, targets)
        return at.logits[-1].float(), at.loss.float(), at.gradient.float()


@dataclass(frozen=True)
class Run:
    """What one run of a member found for every sample.

    Attributes:
        candidates: images to compare on `select` draws.
        returned: the image that the library would hand back where it believes to have succeeded.
        fooled: where it believes so, by single draws.
    """

    candidates: tuple[Tensor, ...]
    returned: Tensor
    fooled: Tensor


def apgd(attack: Any, at: Expectation) -> Iterator[Run]:
    """Auto-PGD (Croce and Hein 2020, algorithm 1) on a loss whose mean over draws is raised."""
    yield _single(attack, at)


def apgd_targeted(attack: Any, at: Expectation) -> Iterator[Run]:
    """Targeted Auto-PGD against the most likely wrong classes in turn."""
    order = at.logits_label_first(at.x).argsort(1, descending=True)
    begun = {row: i for i, row in enumerate(at.rows)}
    for place in range(1, 1 + min(attack.n_target_classes, order.shape[1] - 1)):
        attack.y_target = order[[begun[row] for row in at.rows], place]  # some may have left in between
        yield _single(attack, at)


def _single(attack: Any, at: Expectation) -> Run:
    """One run of Auto-PGD: the iterate of the highest mean loss, and the last one that was wrong on a single draw."""
    attack.init_hyperparam(at.x)
    best, right, _, last_wrong = attack.attack_single_run(at.x, at.problem.y, x_init=at.start())
    return Run((best, last_wrong), last_wrong, ~right.bool())


def fab_targeted(attack: Any, at: Expectation) -> Iterator[Run]:
    """Targeted FAB (Croce and Hein 2020b): the nearest image over the boundary; what lies outside the ball is projected.

    The library drops images outside the ball. The boundary is where half of the draws are wrong.
    """
    attack._get_predicted_label, attack._predict_fn = at.most_frequent_label, at.logits_label_first
    attack.get_diff_logits_grads_batch_targeted = at.logit_difference
    threat, others = at.problem.threat, at.logits_label_first(at.x).shape[1] - 1
    for target in range(2, 2 + min(attack.n_target_classes, others)):
        attack.target_class, x = target, at.x
        at.calls = target * CALLS
        found = attack.attack_single_run(x, at.problem.y, is_targeted=True)
        inside = threat.length(found - x) <= threat.eps
        yield Run((threat.project(found, x),), found, ~at.correct_once(found) & inside)


def square(attack: Any, at: Expectation) -> Iterator[Run]:
    """Square (Andriushchenko et al. 2020): random search on the mean margin; the squares are one stream per chunk."""
    attack.margin_and_loss = at.margin_and_loss
    attack.init_hyperparam(at.x)
    _, found = attack.attack_single_run(at.x, at.problem.y)
    yield Run((found,), found, ~at.correct_once(found))


def _paired(loss: Any) -> Loss:
    """A loss of (logits, labels, targets) as one of (logits, pairs): `estimate` repeats a single tensor per draw."""
    return lambda logits, pair: loss(logits, pair[:, 0], pair[:, 1])


def _logit_difference(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    true, aim = (logits.gather(1, index[:, None]).squeeze(1) for index in (labels, targets))
    return aim - true
