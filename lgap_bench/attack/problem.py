"""What every attack is given, and the one estimate of loss and gradient that gradient attacks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lgap_bench.attack.journal import KEEPS_NOTHING, Journal, journaled
from lgap_bench.attack.several import Present, one_class
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import View
from lgap_bench.dataset.base import DataSet
from lgap_bench.defense import passes
from lgap_bench.noise import Noise, Stream, streams
from lgap_bench.task.single_label import SINGLE_LABEL, SingleLabel

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits, labels) -> per-row loss that the attacker raises
Tell = Callable[[str, int, int | None], None]  # name, k, n: `step` 3 of 20, `call` 17 of nobody knows how many
CaptionTarget = Literal["nearest", "unrelated"]  # see `aim_captions`


def silent(name: str, k: int, n: int | None) -> None:
    """Nobody wants to know how far an attack is."""


@dataclass(frozen=True)
class Problem:
    """A chunk of images to attack.

    Attributes:
        view: the defense, seen as the threat model allows.
        x, y: images (B, C, H, W) in [0, 1] and labels (B,); of an image with several the one that stands for all.
        ids: sample ids, the keys of all noise.
        threat: norm and budget.
        seed: the cell's seed.
        captions: the true caption of each image, for caption attacks.
        class_captions: the true caption of every class, and `unrelated`, a sentence about none: targets of such attacks.
        caption_aims: the sentence that a targeted caption attack leads each image to; empty: away from the true one.
        published: what an attack adds to the record, name -> (B,): a library's own count, bool; the class that a targeted
            caption attack aims at, int.
        task: what counts as right; the data set's.
        present: all classes of each sample, where it may have several: the view's logits are then `several.one_class`'s.
        notes: what an attack or its library has to say of how it went; a `take` writes to the same list.
        tell: is told where the attack is: at most once a step, and it costs no more than a function call.
        journal: keeps the answers of expensive calls, so that a killed attack goes on where it was. The view's calls,
            `estimate` and `caption_term` are answered from it; it does nothing else, and attacks need not know of it.
    """

    view: View
    x: Tensor
    y: Tensor
    ids: tuple[int, ...]
    threat: Threat
    seed: int
    captions: list[str] = field(default_factory=list)
    class_captions: tuple[str, ...] = ()
    unrelated: str | None = None
    caption_aims: list[str] = field(default_factory=list)
    published: dict[str, Tensor] = field(default_factory=dict)
    task: SingleLabel = SINGLE_LABEL
    present: Present = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tell: Tell = silent
    journal: Journal = KEEPS_NOTHING

    def __post_init__(self) -> None:
        object.__setattr__(self, "view", one_class(journaled(self.view, self.journal), self.present))

    @property
    def keyed(self) -> bool:
        """Whether a call of the view has to say which samples it is about: for their noise, or for their several labels."""
        return self.view.randomized or bool(self.present)

    @property
    def labels(self) -> Tensor:
        """What the task asks of these images: one class each (B,), or all of theirs (B, classes)."""
        return torch.stack([self.present[each] for each in self.ids]).to(self.y.device) if self.present else self.y

    def wrong_classes(self, row: int, classes: int) -> list[int]:
        """The classes that are not in an image, from the one after its label on, around to the ones before."""
        label, held = int(self.y[row]), self.present.get(self.ids[row])
        around = [(label + step) % classes for step in range(1, classes)]
        return around if held is None else [each for each in around if not bool(held[each])]

    def telling(self, before: str) -> Problem:
        """The same problem for a part of an attack, whose steps are told under the part's name."""
        return replace(self, tell=lambda name, k, n: self.tell(f"{before}: {name}", k, n))

    def stream(self, role: str) -> Stream:
        """The noise of one role for these samples."""
        return streams(self.seed, self.ids)[role]

    def take(self, index: Sequence[int]) -> Problem:
        """The same problem for some of the samples, with a `published` of its own."""
        rows = list(index)
        captions = [self.captions[i] for i in rows] if self.captions else []
        aims = [self.caption_aims[i] for i in rows] if self.caption_aims else []
        ids = tuple(self.ids[i] for i in rows)
        part = replace(self, x=self.x[rows], y=self.y[rows], ids=ids, captions=captions, caption_aims=aims)
        return replace(part, published={})


Attack = Callable[[Problem], Tensor]  # attacked images (B, C, H, W); it never says whether it succeeded


@dataclass(frozen=True)
class Parts:
    """What a cell is composed of, built and on its device: images, defense and attacker.

    Attributes:
        measures: see what a defense observed (captions), and add to the record.
    """

    dataset: DataSet
    defense: Any  # a Defense, whose purifier has attributes of its own
    attack: Any  # an Attack, mostly a dataclass of settings
    view: View
    threat: Threat
    measures: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """Loss (B,), its gradient (B, C, H, W) and correctness (draws, B), over the draws of one iterate."""

    loss: Tensor
    gradient: Tensor
    correct: Tensor
    logits: Tensor


def estimate(
    problem: Problem,
    x: Tensor,
    noise: Noise,
    loss: Loss,
    targets: Tensor | None = None,
    caption_weight: float = 0.0,
    vote: bool = False,
    detector_weight: float = 0.0,
) -> Estimate:
    """Expectation over transformation (Athalye et al. 2018): mean loss and gradient at x over the draws of `noise`.

    Draws are batched: draws * B rows in passes of at most `view.max_rows`. The caption is observed once for x. With
    `caption_weight` c > 0 the loss gains c times the caption term: -log p(true caption | x), the captioner's
    teacher-forced loss, or where the problem has caption aims log p(aim | x). With `vote` the draws'
    gradients count by their signs alone, so that the step goes where most draws point. With `detector_weight` d > 0 the loss
    gains d times the detector's term: minus how much of any object it sees.
    Raises FloatingPointError naming the sample if the gradient is not finite: a crash is never scored as robust.
    """
    given = (x, noise, targets, caption_weight, vote, *([detector_weight] if detector_weight else []))
    total, gradient, stacked = problem.journal.tensors(
        "estimate", given, lambda: _estimated(problem, x, noise, loss, targets, vote, caption_weight, detector_weight)
    )
    return Estimate(total, gradient, problem.task.right(stacked, problem.y), stacked)


def _estimated(
    problem: Problem,
    x: Tensor,
    noise: Noise,
    loss: Loss,
    targets: Tensor | None,
    vote: bool,
    caption_weight: float,
    detector_weight: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, gradient and logits of `estimate`."""
    view, draws = problem.view, len(noise) // len(x)
    observed = view.observe(x, noise.rows(0, len(x)))
    aim = problem.y if targets is None else targets
    total, gradient = torch.zeros(len(x), dtype=x.dtype, device=x.device), torch.zeros_like(x)
    logits: list[Tensor] = []
    for first, last in passes(draws * len(x), view.max_rows):
        rows = torch.arange(first, last, device=x.device) % len(x)
        x_rows = x[rows].detach().requires_grad_(True)
        captions = None if observed is None else [observed[i] for i in rows.tolist()]
        with torch.enable_grad():
            out = view.logits(x_rows, noise.rows(first, last), captions)
            each = loss(out, aim[rows])
            if out.requires_grad:  # views such as `query` grant no gradient
                (part,) = torch.autograd.grad(each.sum(), x_rows)
                # Summed piece by piece, so that all draws never lie in memory at once.
                gradient.index_add_(0, rows, (part.sign() if vote else part) / draws)
        total.index_add_(0, rows, each.detach().to(total.dtype) / draws)
        logits.append(out.detach())
    if caption_weight:
        caption_loss, part = caption_term(problem, x)
        total, gradient = total + caption_weight * caption_loss, gradient + caption_weight * part
    if detector_weight:
        unseen, part = detector_term(problem, x)
        total, gradient = total + detector_weight * unseen, gradient + detector_weight * part
    finite = torch.isfinite(gradient).flatten(1).all(1)
    if not bool(finite.all()):
        raise FloatingPointError(f"gradient of sample {problem.ids[int((~finite).nonzero()[0])]} is not finite")
    return total, gradient, torch.cat(logits).view(draws, len(x), -1)


def caption_term(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (B,) of the captioner on the true captions, or minus its loss on the caption aims, and its gradient."""
    aims, captions = problem.caption_aims, problem.captions
    value, gradient = problem.journal.tensors("caption", (x, aims, captions), lambda: _caption_term(problem, x))
    return value, gradient


def _caption_term(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    captioner, aims = _attackable(problem), problem.caption_aims
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        value = captioner.loss(problem.view.defense.as_model_input(x), aims or problem.captions).to(x.dtype)
        value = -value if aims else value
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def detector_term(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the detector's evidence of any object at x, (B,), and its gradient: raising it makes boxes vanish."""
    value, gradient = problem.journal.tensors("detector", (x,), lambda: _detector_term(problem, x))
    return value, gradient


def _detector_term(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    detector: Any = getattr(problem.view.defense.purifier, "detector", None)
    if detector is None or not hasattr(detector, "presence"):
        raise ValueError(
            "attack.detector_weight > 0 needs a purifier with a detector that can be attacked: use purifier=inpaint"
        )
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        value = -detector.presence(problem.view.defense.as_model_input(x)).to(x.dtype)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


@torch.no_grad()
def aim_captions(problem: Problem, caption_target: CaptionTarget | None) -> Problem:
    """The problem with the sentences that a targeted caption attack leads to, decided once, on the clean images.

    Args:
        caption_target: null leaves the problem untargeted; `nearest` is the true caption of the wrong class that the
            captioner finds most likely on the clean image; `unrelated` is the data set's sentence about no class.

    Writes `caption_target_label` to `problem.published`: the class (B,), or -1 where the target is no class.
    """
    if caption_target is None:
        return problem
    if caption_target == "unrelated":
        if problem.unrelated is None:
            raise ValueError("attack.caption_target=unrelated needs a sentence: set dataset.unrelated")
        problem.published["caption_target_label"] = torch.full_like(problem.y, -1)
        return replace(problem, caption_aims=[problem.unrelated] * len(problem.x))
    captioner, x = _attackable(problem), problem.view.defense.as_model_input(problem.x)
    (each,) = problem.journal.tensors(
        "caption aims",
        (x, problem.class_captions),
        lambda: (torch.stack([captioner.loss(x, [text] * len(x)) for text in problem.class_captions], dim=1),),
    )
    labels = each.scatter(1, problem.y[:, None], torch.inf).argmin(1)
    problem.published["caption_target_label"] = labels
    return replace(problem, caption_aims=[problem.class_captions[k] for k in labels.tolist()])


def _attackable(problem: Problem) -> Any:
    """The purifier's captioner, which has to have a loss."""
    captioner: Any = problem.view.defense.purifier.captioner
    if captioner is None or not hasattr(captioner, "loss"):
        raise ValueError(
            "attack.caption_weight > 0 needs a purifier with a captioner that can be attacked: use purifier=lgap with a BLIP captioner"
        )
    return captioner
