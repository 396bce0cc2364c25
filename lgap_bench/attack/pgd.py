"""Projected gradient descent (Madry et al. 2018) on any view, with EOT, restarts and choices that noise cannot bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lgap_bench.attack.problem import CaptionTarget, Estimate, Problem, aim_captions, estimate
from lgap_bench.attack.select import WorstCase, confirmed_wrong, wrongness
from lgap_bench.cell.values import fraction
from lgap_bench.noise import derive
from lgap_bench.runtime.choices import require_choices
from lgap_bench.task import loss as losses

RECHECK_AFTER = 5  # steps before a sample that failed the fresh-draws check is checked again


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

    def __post_init__(self) -> None:
        require_choices(self, "attack")
        if self.target is not None and self.loss != "cross_entropy":
            raise ValueError(
                f"attack.target={self.target} with attack.loss={self.loss}: a targeted attack lowers the cross-entropy of its target, use attack.loss=cross_entropy"
            )
        if self.eot == "sign_vote" and self.caption_weight:
            raise ValueError("attack.eot=sign_vote counts signs, in which a caption term is lost: use attack.eot=mean")

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball."""
        problem = aim_captions(problem, self.caption_target)
        chosen = _Worst.of(problem, self.select_draws)
        targets = self._targets(problem)
        for restart in range(self.restarts):
            left = [i for i in range(len(problem.x)) if not chosen.broken[i]]
            if not left:
                break
            aims = None if targets is None else targets[left]
            found, broken = self._run(problem.take(left), aims, restart)
            chosen.offer(left, found, broken, compare=self.restarts > 1)
        return chosen.x

    def _run(self, problem: Problem, targets: Tensor | None, restart: int) -> tuple[Tensor, Tensor]:
        """One run: the chosen iterate of each sample, and which of them are broken for certain."""
        x = self._start(problem, restart)
        run = _Iterates(x)
        step_size = fraction(self.step_size, "attack.step_size", problem.threat.eps)
        active = list(range(len(x)))
        for step in range(self.steps + 1):
            # The last pass only judges the last iterate: a deterministic view needs it, keep=last does not.
            if step == self.steps and (self.keep == "last" or problem.view.randomized):
                break
            part = problem.take(active)
            aims = None if targets is None else targets[active]
            at = self._estimate(part, run.x[active], aims, restart, step)
            run.note(active, at)
            places = list(range(len(active)))
            if self.keep == "best":
                gone = self._broken(problem, run, active, at, restart, step)
                places = [place for place, a in enumerate(active) if a not in gone]
                active = [active[place] for place in places]
                if not active:
                    break
            if step < self.steps:
                moved = run.x[active] + problem.threat.ascend(at.gradient[places], step_size)
                run.x[active] = problem.threat.project(moved, problem.x[active])
        return self._settle(problem, run, restart), run.broken

    def _estimate(self, part: Problem, x: Tensor, aims: Tensor | None, restart: int, step: int) -> Estimate:
        def raised(logits: Tensor, labels: Tensor) -> Tensor:
            plain = losses.targeted_cross_entropy if aims is not None else getattr(losses, self.loss)
            return self.class_weight * plain(logits, labels)

        draws = self.draws if part.view.randomized else 1
        noise = part.stream("attack").draws(draws, restart, 0 if self.noise == "fixed" else step)
        return estimate(part, x, noise, raised, aims, self.caption_weight, vote=self.eot == "sign_vote")

    def _broken(
        self, problem: Problem, run: _Iterates, active: list[int], at: Estimate, restart: int, step: int
    ) -> set[int]:
        """Samples that leave: at once where the view is deterministic, else when fooled on fresh draws too."""
        wrong = [a for a, bad in zip(active, (~at.correct).all(0).tolist(), strict=True) if bad]
        if problem.view.randomized:
            due = [a for a in wrong if self.confirm_draws and step - run.checked[a] >= RECHECK_AFTER]
            for a in due:
                run.checked[a] = step
            wrong = confirmed_wrong(problem, run.x, due, self.confirm_draws, restart, 1 + step)
        run.broken[wrong] = True
        run.best[wrong] = run.x[wrong]
        return set(wrong)

    def _settle(self, problem: Problem, run: _Iterates, restart: int) -> Tensor:
        """The worst of three iterates, two of high noisy loss and the last, on select draws that saw none of them."""
        if self.keep == "last":
            return run.x
        open_ = [i for i in range(len(run.x)) if not run.broken[i]]
        if problem.view.randomized and open_:
            part = problem.take(open_)
            worst = WorstCase(part, part.stream("select").draws(self.select_draws, restart))
            for candidate in (run.best, run.second, run.x):
                worst.offer(candidate[open_])
            run.best[open_] = worst.x
        return run.best

    def _start(self, problem: Problem, restart: int) -> Tensor:
        zero = self.start == "zero" or (self.start == "both" and restart % 2 == 0)
        if zero:
            return problem.x.clone()
        return problem.threat.random(problem.x, problem.stream("attack").draws(1, restart, -1))

    def _targets(self, problem: Problem) -> Tensor | None:
        if self.target is None:
            return None
        noise = problem.stream("select").draws(1, 0, -1)
        logits = problem.view.query(problem.x, noise)[0]
        if self.target == "runner_up":
            return logits.scatter(1, problem.y[:, None], -torch.inf).argmax(1)
        others = logits.shape[1] - 1
        shifts = [1 + derive(problem.seed, "target", sample) % others for sample in problem.ids]
        return (problem.y + torch.tensor(shifts, device=problem.y.device)) % (others + 1)


class _Iterates:
    """The current iterate of every sample, the two best so far by the attacker's own loss, and who is broken."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.best, self.second = x.clone(), x.clone(), x.clone()
        self.loss = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        self.second_loss = self.loss.clone()
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.checked = [-RECHECK_AFTER] * len(x)

    def note(self, active: list[int], at: Estimate) -> None:
        """Remember the iterates of the two highest losses."""
        where = torch.tensor(active, device=self.x.device)
        first = at.loss > self.loss[where]
        next_ = ~first & (at.loss > self.second_loss[where])
        rows = where[next_]
        self.second[rows], self.second_loss[rows] = self.x[rows], at.loss[next_]
        rows = where[first]
        self.second[rows], self.second_loss[rows] = self.best[rows], self.loss[rows]
        self.best[rows], self.loss[rows] = self.x[rows], at.loss[first]


@dataclass
class _Worst:
    """The worst image per sample over restarts, compared on select draws only."""

    problem: Problem
    draws: int
    x: Tensor
    broken: list[bool]
    damage: Tensor

    @classmethod
    def of(cls, problem: Problem, draws: int) -> _Worst:
        size = len(problem.x)
        nothing = torch.full((size,), -torch.inf, dtype=problem.x.dtype, device=problem.x.device)
        return cls(problem, draws, problem.x.clone(), [False] * size, nothing)

    def offer(self, index: list[int], found: Tensor, broken: Tensor, compare: bool) -> None:
        """Keep the found images where they do more damage than what is held; all restarts meet the same draws."""
        part = self.problem.take(index)
        harm = (
            wrongness(part, found, part.stream("select").draws(self.draws, 0, -2))
            if compare
            else torch.zeros(len(index))
        )
        for place, i in enumerate(index):
            if harm[place] > self.damage[i]:
                self.x[i], self.damage[i] = found[place], harm[place]
            self.broken[i] = self.broken[i] or bool(broken[place])
