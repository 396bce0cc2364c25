"""What every attack is given, and the one estimate of loss and gradient that gradient attacks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import View
from lgap_bench.dataset.base import DataSet
from lgap_bench.defense import passes
from lgap_bench.noise import Noise, Stream, streams
from lgap_bench.task.single_label import SINGLE_LABEL, SingleLabel

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits, labels) -> per-row loss that the attacker raises
CaptionTarget = Literal["nearest", "unrelated"]  # see `aim_captions`


@dataclass(frozen=True)
class Problem:
    """A chunk of images to attack.

    Attributes:
        view: the defense, seen as the threat model allows.
        x, y: images (B, C, H, W) in [0, 1] and labels (B,).
        ids: sample ids, the keys of all noise.
        threat: norm and budget.
        seed: the cell's seed.
        captions: the true caption of each image, for caption attacks.
        class_captions: the true caption of every class, and `unrelated`, a sentence about none: targets of such attacks.
        caption_aims: the sentence that a targeted caption attack leads each image to; empty: away from the true one.
        published: what an attack adds to the record, name -> (B,): a library's own count, bool; the class that a targeted
            caption attack aims at, int.
        task: what counts as right; the data set's.
        notes: what an attack or its library has to say of how it went; a `take` writes to the same list.
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
    notes: list[str] = field(default_factory=list)

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
) -> Estimate:
    """Expectation over transformation (Athalye et al. 2018): mean loss and gradient at x over the draws of `noise`.

    Draws are batched: draws * B rows in passes of at most `view.max_rows`. The caption is observed once for x. With
    `caption_weight` c > 0 the loss gains c times the caption term: -log p(true caption | x), the captioner's
    teacher-forced loss, or where the problem has caption aims log p(aim | x). With `vote` the draws'
    gradients count by their signs alone, so that the step goes where most draws point.
    Raises FloatingPointError naming the sample if the gradient is not finite: a crash is never scored as robust.
    """
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
    finite = torch.isfinite(gradient).flatten(1).all(1)
    if not bool(finite.all()):
        raise FloatingPointError(f"gradient of sample {problem.ids[int((~finite).nonzero()[0])]} is not finite")
    stacked = torch.cat(logits).view(draws, len(x), -1)
    return Estimate(total, gradient, problem.task.right(stacked, problem.y), stacked)


def caption_term(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (B,) of the captioner on the true captions, or minus its loss on the caption aims, and its gradient."""
    captioner, aims = _attackable(problem), problem.caption_aims
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        value = captioner.loss(problem.view.defense.as_model_input(x), aims or problem.captions).to(x.dtype)
        value = -value if aims else value
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
    each = torch.stack([captioner.loss(x, [caption] * len(x)) for caption in problem.class_captions], dim=1)
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
