"""AutoAttack (Croce and Hein 2020) and its Auto-PGD alone, through the authors' code.

On a deterministic view the library runs exactly as published, filters and all, and its images are returned. It hides which
samples it passes on, so its random numbers are the chunk's, seeded by the cell's seed.

On a randomized view the library's loop would keep lucky samples (see lgap_bench/attack/expectation.py). There
- every member attacks the mean over EOT draws, on every sample that is left;
- the worst image of each sample is chosen on `select` draws;
- a sample is spared further runs only when `confirm_draws` fresh draws are all wrong, not after one;
- noise and random starts belong to the sample, and only Square's squares to the chunk.

Written to `problem.published`, each (B,):
- `as_published`: whether the library's own count calls the sample robust. Under a randomized view that count goes by single
  draws. For a sample that was spared later runs it is the count at that moment.
- `found_by_<member>`: whose image was the worst; only under a randomized view, since the library does not tell.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lgap_bench.attack import expectation
from lgap_bench.attack.expectation import Expectation, Run
from lgap_bench.attack.problem import Problem
from lgap_bench.attack.select import WorstCase, confirmed_wrong
from lgap_bench.defense import passes
from lgap_bench.noise import Noise
from lgap_bench.purifier.memory import recomputed
from lgap_bench.runtime import libraries
from lgap_bench.runtime.choices import require_choices

MEMBERS = {"standard": ("apgd-ce", "apgd-t", "fab-t", "square"), "rand": ("apgd-ce", "apgd-dlr")}
CLASSES = {"apgd-dlr": 3, "apgd-t": 4}  # the DLR losses divide by the third and fourth largest logit
NORMS = {"linf": "Linf", "l2": "L2"}
STEPS = 100  # the library's, for APGD and FAB


@dataclass(frozen=True)
class APGD:
    """Auto-PGD alone, one random start; with `targeted_dlr` one towards each of the nine classes that are likeliest.

    Args:
        loss: `cross_entropy`, `dlr` or `targeted_dlr`.
        n_iter: gradient steps, towards each target.
        draws: EOT draws per gradient; a deterministic view needs one and takes one.
        select_draws: fresh draws on which iterates are compared under a randomized view.
        confirm_draws: as AutoAttack's; it saves something where there are several targets.
    """

    loss: Literal["cross_entropy", "dlr", "targeted_dlr"] = "cross_entropy"
    n_iter: int = STEPS
    draws: int = 20
    select_draws: int = 10
    confirm_draws: int = 0

    def __post_init__(self) -> None:
        require_choices(self, "attack")

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball. Raises FloatingPointError on a bad gradient."""
        names = {"cross_entropy": "apgd-ce", "dlr": "apgd-dlr", "targeted_dlr": "apgd-t"}
        return _attack(problem, [names[self.loss]], f"attack.loss={self.loss}", self)


@dataclass(frozen=True)
class AutoAttack:
    """The ensemble: `standard` (APGD-CE, targeted APGD, targeted FAB, Square) or `rand` (APGD-CE and APGD-DLR).

    Args:
        version: `standard` or `rand`.
        draws: EOT draws per gradient; the library takes 20 for `rand`, 1 for `standard`. A deterministic view takes one.
        n_iter: steps of APGD and FAB. With fewer than 100 it is not AutoAttack: for tests.
        n_queries: queries of Square; the library's is 5000.
        select_draws: fresh draws on which members and iterates are compared under a randomized view.
        confirm_draws: under a randomized view a sample is spared further runs when all of these fresh draws are wrong; 0: it
            meets every run. Deterministic views go by the library.
    """

    version: Literal["standard", "rand"] = "standard"
    draws: int = 20
    n_iter: int = STEPS
    n_queries: int = 5000
    select_draws: int = 10
    confirm_draws: int = 32

    def __post_init__(self) -> None:
        require_choices(self, "attack")

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images (B, C, H, W), inside the threat's ball. Raises FloatingPointError on a bad gradient."""
        return _attack(problem, MEMBERS[self.version], f"attack.version={self.version}", self)


def _attack(problem: Problem, members: Sequence[str], key: str, settings: APGD | AutoAttack) -> Tensor:
    """Refuse too few classes, then attack; what the library does to global generators is undone."""
    noise = problem.stream("select").take([0]).draws(1, 0, -1)
    classes = problem.view.query(problem.x[:1], noise).shape[-1]
    needed = max(CLASSES.get(member, 1) for member in members)
    if classes < needed:
        raise ValueError(
            f"{key} needs a classifier of at least {needed} classes, and this one has {classes}: use attack=apgd_ce"
        )
    # The library's inner loops would keep a growing graph; gradients are switched on where one is taken.
    with libraries.fenced(problem.notes), torch.no_grad():
        library = build_library(problem, members, classes, settings)
        # The library looks at parts of a batch, without saying which.
        x_adv = attack_every_sample(problem, library, settings) if problem.keyed else _as_published(problem, library)
        return x_adv.to(problem.x.dtype)


def build_library(problem: Problem, members: Sequence[str], classes: int, settings: APGD | AutoAttack) -> Any:
    """The library's AutoAttack with the settings of its versions `standard` and `rand`, one draw per pass."""
    kind = libraries.autoattack().AutoAttack
    original = "attacks_to_run" in inspect.signature(kind).parameters  # the API of fra31/auto-attack
    chosen = {"attacks_to_run": list(members), "verbose": False} if original else {"attacks": list(members)}
    norm, eps = NORMS[problem.threat.norm], problem.threat.eps
    library = kind(
        ViewLogits(problem), norm=norm, eps=eps, seed=problem.seed, version="custom", device=problem.x.device, **chosen
    )
    steps, targets = settings.n_iter, min(9, classes - 1)  # the library fails where there are fewer targets than 9
    library.apgd, library.apgd_targeted = rebuilt_apgd(library.apgd, steps), rebuilt_apgd(library.apgd_targeted, steps)
    library.fab.n_restarts, library.fab.n_iter = 1, steps
    library.apgd_targeted.n_target_classes = library.fab.n_target_classes = targets
    library.square.n_queries = getattr(settings, "n_queries", library.square.n_queries)
    return library


def rebuilt_apgd(like: Any, n_iter: int, model: Expectation | None = None) -> Any:
    """The library's APGD built anew, since its schedule follows from n_iter when it is built; on `model`, if given."""
    given = {key: getattr(like, key) for key in ("norm", "eps", "seed", "device", "logger")}
    return type(like)(model or like.model, n_iter=n_iter, n_restarts=1, is_tf_model=model is not None, **given)


def _as_published(problem: Problem, library: Any) -> Tensor:
    """The library's own run on a deterministic view, with its own count."""
    evaluate, x = library.run_standard_evaluation, problem.x.float().contiguous()
    given = {"bs": len(x), "return_labels": True} if "bs" in inspect.signature(evaluate).parameters else {}
    x_adv, predicted = evaluate(x, problem.y, **(given or {"batch_size": len(x)}))
    problem.published["as_published"] = predicted == problem.y
    return x_adv


def attack_every_sample(problem: Problem, library: Any, settings: APGD | AutoAttack) -> Tensor:
    """Run member after member and return the worst image of each sample, chosen on `select` draws.

    The library's single-draw count is kept up beside it. Unlike in the published loop, no single wrong draw ends a sample,
    neither on its clean image nor on an attacked one.
    """
    torch.manual_seed(problem.seed)  # for Square's squares, as the library does; `fenced` restores the generator
    select_draws = settings.select_draws if problem.view.randomized else 1
    worst = WorstCase(problem, problem.stream("select").draws(select_draws))
    robust = Expectation(problem, 1, member=len(library.attacks_to_run)).correct_once(problem.x)
    finder = torch.full_like(problem.y, -1)
    confirmed: set[int] = set()
    for number, name in enumerate(library.attacks_to_run):
        problem.tell(f"member {name}", number + 1, len(library.attacks_to_run))
        at = Expectation(problem.telling(name), settings.draws, number)
        at.drop(confirmed)
        begun = list(at.rows)
        # What the library would do: attack only what one draw gets right, and hand back the first image that one
        # draw gets wrong.
        returned, resisting = problem.x.float().clone(), torch.zeros_like(robust)
        resisting[begun] = at.correct_once(at.x)
        for place, run in enumerate(_runs(name, library, at, settings.n_iter)):
            for candidate in run.candidates:
                finder[worst.offer(candidate.to(problem.x.dtype), at.rows)] = number
            for row, image, fooled in zip(at.rows, run.returned, run.fooled.tolist(), strict=True):
                if fooled and resisting[row]:
                    returned[row], resisting[row] = image, False
            confirmed.update(_confirmed(problem, worst, at.rows, settings, number, place))
            at.drop(confirmed)
            if not at.rows:
                break
        robust[begun] &= Expectation(problem.take(begun), 1, number, at.calls).correct_once(returned[begun])
        if len(confirmed) == len(robust):
            break
    problem.published["as_published"] = robust
    for number, name in enumerate(library.attacks_to_run):
        problem.published[f"found_by_{name}"] = finder == number
    return worst.x


def _confirmed(
    problem: Problem, worst: WorstCase, rows: Sequence[int], settings: APGD | AutoAttack, member: int, run: int
) -> list[int]:
    """The samples among `rows` whose worst image so far is wrong on fresh draws too."""
    wrong = worst.always_wrong.tolist()
    candidates = [row for row in rows if wrong[row]]
    # Steps count from 1 here: step 0 is the draws on which the images are compared.
    draws = settings.confirm_draws if problem.view.randomized else min(settings.confirm_draws, 1)
    return confirmed_wrong(problem, worst.x, candidates, draws, member, 1 + run)


def _runs(name: str, library: Any, at: Expectation, n_iter: int) -> Iterator[Run]:
    """The runs of one member by the library's name for it."""
    if name == "fab-t":
        return expectation.fab_targeted(library.fab, at)
    if name == "square":
        return expectation.square(library.square, at)
    if name == "apgd-t":
        targeted = rebuilt_apgd(library.apgd_targeted, n_iter, at)
        targeted.n_target_classes = library.apgd_targeted.n_target_classes
        return expectation.apgd_targeted(targeted, at)
    attack = rebuilt_apgd(library.apgd, n_iter, at)
    attack.loss = name.removeprefix("apgd-")
    return expectation.apgd(attack, at)


class ViewLogits:
    """A deterministic view as the function of images that the library wants."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.calls = problem, 0

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (rows, classes) in float32, with the view's gradient, checked on its way back."""
        self.calls += 1
        self.problem.tell("call", self.calls, None)
        return self.problem.journal.differentiable("logits", x, (), self._logits)

    def _logits(self, x: Tensor) -> Tensor:
        tracked = x.requires_grad and torch.is_grad_enabled()
        pixels = x.to(self.problem.x.dtype, copy=True)
        pieces = passes(len(x), self.problem.view.max_rows)
        # Pieces are recomputed in the backward pass, so that the graph of one at a time is held.
        recompute = tracked and len(pieces) > 1
        logits = torch.cat([self._forward(pixels[a:b], recompute) for a, b in pieces]).float()
        if tracked:
            pixels.register_hook(self._check)
            # A view that grants no gradient at all grants zero, where the library would stop with an error.
            logits = logits + 0 * pixels.flatten(1).sum(1, keepdim=True)
        return logits

    def _forward(self, x: Tensor, recompute: bool) -> Tensor:
        if recompute:
            return recomputed(self._forward, x, False)
        # Nothing is drawn here. The id -1 is no sample's: a part that looks samples up fails instead of reading another's.
        noise = Noise((0,) * len(x), (-1,) * len(x), self.problem.seed)
        view = self.problem.view
        return view.logits(x, noise, view.observe(x, noise))

    def _check(self, gradient: Tensor) -> None:
        if not bool(torch.isfinite(gradient).all()):
            raise FloatingPointError(f"a gradient in the chunk of sample {self.problem.ids[0]} is not finite")
