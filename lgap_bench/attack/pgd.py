"""Projected gradient descent (Madry et al. 2018) on any view, with EOT, restarts and choices that noise cannot bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lgap_bench.attack.problem import CaptionTarget, Estimate, Problem, aim_captions, estimate
from lgap_bench.attack.select import WorstCase, confirmed_wrong
from lgap_bench.cell.values import fraction
from lgap_bench.noise import derive
from lgap_bench.runtime.choices import require_choices
from lgap_bench.task import loss as losses

# Steps before an image that was right on a fresh draw is checked again: it has hardly moved, and a check costs up to
# `confirm_draws` passes.
RECHECK_AFTER = 5


@dataclass(frozen=True)
class PGD:
    """x <- project(x + step_size * steepest ascent direction), from a zero or random start, several times.

    Args:
        steps: gradient steps per restart.
        step_size: in [0, 1] pixel units (linf) or l2 length: a number, "2/255" or "eps/4".
        start: `zero`, `random` (uniform in the ball) or `both`: restarts alternate, zero first (Lee and Kim 2023).
        restarts: independent runs; the worst per sample is kept, judged on `select` draws.
        draws: EOT draws per gradient; 1 where the view is deterministic.
        noise: `fresh` draws at every step, or `fixed`: a restart's steps all meet the same draws, so that an attacker who
            freezes the defense's noise climbs one fixed function (and overfits to these draws).
        loss: `cross_entropy`, `margin` or `dlr`; with a target `cross_entropy` alone.
        target: `null` for untargeted; `random` (a wrong class by seed and sample) or `runner_up`.
        class_weight: weight of the classification loss; 0 for attacks on the caption alone.
        caption_weight: weight of the captioner's teacher-forced loss on the true caption.
        caption_target: `null` raises that loss; `nearest` and `unrelated` lower the loss on another sentence instead, see
            `problem.aim_captions`.
        detector_weight: weight of the detector's term: boxes vanish.
        keep: `best` (deterministic view: the first wrong or highest-loss iterate; randomized: chosen on select draws
            among the two iterates of highest EOT loss and the last) or `last` (as torchattacks does).
        eot: `mean` averages the draws' gradients; `sign_vote` their signs, as LGAP's release does.
        select_draws: fresh draws on which iterates and restarts are compared.
        confirm_draws: a sample leaves early under a randomized view only when all of these fresh draws are wrong;
            0: it never leaves, and every step and restart is spent on it.
    """

    steps: int
    step_size: str | float
    start: Literal["zero", "random", "both"] = "random"
    restarts: int = 1
    draws: int = 1
    noise: Literal["fresh", "fixed"] = "fresh"
    loss: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy"
    target: Literal["random", "runner_up"] | None = None
    class_weight: float = 1.0
    caption_weight: float = 0.0
    caption_target: CaptionTarget | None = None
    keep: Literal["best", "last"] = "best"
    eot: Literal["mean", "sign_vote"] = "mean"
    select_draws: int = 8
    confirm_draws: int = 32
    detector_weight: float = 0.0

    def __post_init__(self) -> None:
        require_choices(self, "attack")
        if self.target is not None and self.loss != "cross_entropy":
            raise ValueError(
                f"attack.target={self.target} with attack.loss={self.loss}: a targeted attack lowers the cross-entropy of its target, use attack.loss=cross_entropy"
            )
        if self.eot == "sign_vote" and (self.caption_weight or self.detector_weight):
            raise ValueError(
                "attack.eot=sign_vote counts signs, in which a caption's or a detector's term is lost: use attack.eot=mean"
            )

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball."""
        problem = aim_captions(problem, self.caption_target)
        targets = self.target_classes(problem)
        if self.restarts == 1:
            # With nothing to compare, the queries that a comparison costs are saved.
            return self._run(problem, targets, 0)[0]
        # Step -2 is nobody else's: no attack and no iterate was chosen on these draws, and all restarts meet them.
        worst = WorstCase(problem, problem.stream("select").draws(self.select_draws, 0, -2))
        left = list(range(len(problem.x)))
        for restart in range(self.restarts):
            aims = None if targets is None else targets[left]
            found, confirmed = self._run(problem.take(left), aims, restart)
            worst.offer(found, left)
            left = [row for row, wrong in zip(left, confirmed.tolist(), strict=True) if not wrong]
            if not left:
                break
        return worst.x

    def _run(self, problem: Problem, targets: Tensor | None, restart: int) -> tuple[Tensor, Tensor]:
        """One restart: the chosen iterate of each sample (B, C, H, W), and which of them are confirmed wrong (B,)."""
        x = self.start_images(problem, restart)
        run = _Iterates(x)
        step_size = fraction(self.step_size, "attack.step_size", problem.threat.eps)
        active = list(range(len(x)))
        for step in range(self.steps + 1):
            # The last pass only judges the last iterate: a deterministic view needs it, keep=last does not.
            if step == self.steps and (self.keep == "last" or problem.view.randomized):
                break
            problem.tell("step", restart * self.steps + min(step + 1, self.steps), self.restarts * self.steps)
            part = problem.take(active)
            aims = None if targets is None else targets[active]
            estimated = self._estimate(part, run.x[active], aims, restart, step)
            run.note(active, estimated)
            run.trace(active, estimated)
            gradient = estimated.gradient
            if self.keep == "best":
                done = self._confirm(problem, run, active, estimated, restart, step)
                places = [place for place, row in enumerate(active) if row not in done]
                active, gradient = [active[place] for place in places], gradient[places]
                if not active:
                    break
            if step < self.steps:
                moved = run.x[active] + problem.threat.ascend(gradient, step_size)
                run.x[active] = problem.threat.project(moved, problem.x[active])
        if self.restarts == 1:
            problem.published.update(run.diagnostics(problem.view.randomized))
        return self._choose(problem, run, restart), run.confirmed

    def _estimate(self, part: Problem, x: Tensor, aims: Tensor | None, restart: int, step: int) -> Estimate:
        """Loss and gradient of the iterates x; `aims` are the target classes, None where untargeted."""

        def raised(logits: Tensor, labels: Tensor) -> Tensor:
            plain = losses.targeted_cross_entropy if aims is not None else getattr(losses, self.loss)
            return self.class_weight * plain(logits, labels)

        draws = self.draws if part.view.randomized else 1
        noise = part.stream("attack").draws(draws, restart, 0 if self.noise == "fixed" else step)
        vote = self.eot == "sign_vote"
        return estimate(part, x, noise, raised, aims, self.caption_weight, vote, self.detector_weight)

    def _confirm(
        self, problem: Problem, run: _Iterates, active: list[int], estimated: Estimate, restart: int, step: int
    ) -> set[int]:
        """Samples that are done: wrong once where the view is deterministic, else wrong on fresh draws too."""
        always_wrong = (~estimated.correct).all(0).tolist()
        wrong = [row for row, yes in zip(active, always_wrong, strict=True) if yes]
        if problem.view.randomized:
            # The gradient's own draws prove little: the iterate was moved to be wrong on draws like these.
            due = [row for row in wrong if self.confirm_draws and step - run.checked[row] >= RECHECK_AFTER]
            for row in due:
                run.checked[row] = step
            wrong = confirmed_wrong(problem, run.x, due, self.confirm_draws, restart, 1 + step)
        run.confirmed[wrong] = True
        run.best[wrong] = run.x[wrong]
        return set(wrong)

    def _choose(self, problem: Problem, run: _Iterates, restart: int) -> Tensor:
        """The iterate of each sample that a restart hands on: see `keep`."""
        if self.keep == "last":
            return run.x
        unconfirmed = [row for row in range(len(run.x)) if not run.confirmed[row]]
        if problem.view.randomized and unconfirmed:
            # The highest of many noisy losses is often a lucky draw, so a few candidates meet fresh ones.
            part = problem.take(unconfirmed)
            worst = WorstCase(part, part.stream("select").draws(self.select_draws, restart))
            for candidate in (run.best, run.second, run.x):
                worst.offer(candidate[unconfirmed])
            run.best[unconfirmed] = worst.x
        return run.best

    def start_images(self, problem: Problem, restart: int) -> Tensor:
        """Where a restart begins, (B, C, H, W)."""
        zero = self.start == "zero" or (self.start == "both" and restart % 2 == 0)
        if zero:
            return problem.x.clone()
        return problem.threat.random(problem.x, problem.stream("attack").draws(1, restart, -1))

    def target_classes(self, problem: Problem) -> Tensor | None:
        """The class that each image is led to, (B,); None for an untargeted attack. Decided once, on clean images."""
        if self.target is None:
            return None
        noise = problem.stream("select").draws(1, 0, -1)
        logits = problem.view.query(problem.x, noise)[0]
        if self.target == "runner_up":
            return logits.scatter(1, problem.y[:, None], -torch.inf).argmax(1)
        wrong = [problem.wrong_classes(row, logits.shape[1]) for row in range(len(problem.x))]
        chosen = [
            each[derive(problem.seed, "target", sample) % len(each)]
            for each, sample in zip(wrong, problem.ids, strict=True)
        ]
        return torch.tensor(chosen, device=problem.y.device)


class _Iterates:
    """The current iterate of every sample, the two best so far by the attacker's own loss, and who is confirmed wrong."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.best, self.second = x.clone(), x.clone(), x.clone()
        self.loss = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        self.second_loss = self.loss.clone()
        self.confirmed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.checked = [-RECHECK_AFTER] * len(x)
        self.losses: list[Tensor] = []  # (B,) per step, NaN where a sample has left
        self.once_wrong = torch.zeros_like(self.confirmed)

    def trace(self, active: list[int], estimated: Estimate) -> None:
        """Remember the losses, and who was wrong on every draw of a step."""
        line = torch.full_like(self.loss, torch.nan)
        line[active] = estimated.loss
        self.losses.append(line)
        self.once_wrong[active] |= (~estimated.correct).all(0)

    def diagnostics(self, randomized: bool) -> dict[str, Tensor]:
        """What the record keeps of the run, (B,) each.

        `loss_rise`: how much the mean loss of the last tenth of the steps lies above that of the tenth before, as a share of
        the run's range: what more steps may find. `lost_success`: wrong at some step; of a deterministic view alone, since
        on a randomized one a single step's draws prove nothing.
        """
        steps = torch.stack(self.losses)
        tenth = max(1, len(steps) // 10)
        if len(steps) < 2 * tenth:
            return {} if randomized else {"lost_success": self.once_wrong}
        span = (steps.amax(0) - steps.amin(0)).clamp_min(1e-12)
        rise = (steps[-tenth:].mean(0) - steps[-2 * tenth : -tenth].mean(0)) / span
        return {"loss_rise": rise} | ({} if randomized else {"lost_success": self.once_wrong})

    def note(self, active: list[int], estimated: Estimate) -> None:
        """Remember the iterates of the two highest losses."""
        where = torch.tensor(active, device=self.x.device)
        first = estimated.loss > self.loss[where]
        second = ~first & (estimated.loss > self.second_loss[where])
        rows = where[second]
        self.second[rows], self.second_loss[rows] = self.x[rows], estimated.loss[second]
        rows = where[first]  # their former best is now the second
        self.second[rows], self.second_loss[rows] = self.best[rows], self.loss[rows]
        self.best[rows], self.loss[rows] = self.x[rows], estimated.loss[first]
