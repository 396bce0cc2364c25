"""Contracts: what every part promises, asked on a few real images before the attack. A broken promise is one line.

The same noise gives the same answer, alone or in a batch, with gradients on or off, whatever the global generators do;
the input stays as it is; purified images are images, logits are logits; a view that promises a gradient has one. Numbers
measured on a part that breaks one of these would be wrong without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lgap_bench.attack.problem import Parts, Problem
from lgap_bench.cell.about import about
from lgap_bench.cell.config import Cell
from lgap_bench.noise import Noise
from lgap_bench.runtime import generators
from lgap_bench.runtime.errors import in_user_code

IMAGES = 3  # asked about; together about ten purifications, less than one chunk's
# What the dtype's rounding may add to a purified value when an image stands in another batch: sums run in another order,
# and a diffusion's steps carry that on. A dependence on the batch's content moves values by far more.
ROUNDING = {torch.float64: 1e-7, torch.float32: 5e-3}
COARSE = 0.1  # of models in bfloat16 or float16
OTHER = 1_000_003  # where the global generators stand when a part is asked again
CHECKS = 6  # told as steps; the last is the gradient's


@dataclass(frozen=True)
class Asked:
    """The images that the parts are asked about, and how errors call these parts."""

    purifier: str
    classifier: str
    x: Tensor
    noise: Noise
    models: torch.dtype
    tolerance: float

    @property
    def repeated(self) -> float:
        """What the same pass may differ by when it is done again: nothing on a CPU."""
        return 0.0 if self.x.device.type == "cpu" else self.tolerance

    @classmethod
    def of(cls, parts: Parts, cell: Cell, problem: Problem) -> Asked:
        """The problem's first images, on `select` draws that no attack and no score meets."""
        few = problem.take(range(min(IMAGES, len(problem.x))))
        models = next((p.dtype for p in parts.defense.parameters()), few.x.dtype)
        tolerance = ROUNDING.get(models, COARSE)
        noise = few.stream("select").draws(1, 0, -5)
        return cls(
            f"purifier={cell.names.purifier}", f"classifier={cell.names.classifier}", few.x, noise, models, tolerance
        )


def check_contracts(parts: Parts, cell: Cell, problem: Problem) -> None:
    """Raise ValueError for the first promise that a part breaks: which part, what it did, what to do."""
    ask = Asked.of(parts, cell, problem)
    problem.tell("check", 1, CHECKS)
    purified = _check_purified(parts, ask)
    _check_mode(parts, ask)
    problem.tell("check", 2, CHECKS)
    _check_repeats(parts, ask, purified)
    problem.tell("check", 3, CHECKS)
    if not parts.defense.purifier.depends_on_batch:
        _check_batch(parts, ask, purified)
    problem.tell("check", 4, CHECKS)
    logits = _check_logits(parts, cell, ask, purified)
    _check_mode(parts, ask)
    problem.tell("check", 5, CHECKS)
    _check_classifier(parts, ask, purified, logits)


def _check_mode(parts: Parts, ask: Asked) -> None:
    """Nothing turns on dropout, or statistics over the batch, by itself: asked after a forward pass, which may."""
    training = [name for name, module in parts.defense.named_modules() if module.training]
    if training:
        raise ValueError(
            f"{ask.purifier}, {ask.classifier}: the module {training[0] or 'defense'} is in training mode: do not call train(), a defense is evaluated in eval mode"
        )


def check_labels(parts: Parts, cell: Cell) -> None:
    """Raise ValueError unless the labels are whole numbers: asked first, since captions are looked up by them."""
    labels: Any = parts.dataset.labels
    if not isinstance(labels, Tensor) or labels.dtype not in (torch.int64, torch.int32, torch.uint8, torch.int16):
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"dataset={cell.names.dataset}: labels are {kind}: give whole numbers, an int64 tensor")


PURIFIER = "forward(x, noise, observed=None) takes images and returns images"
CLASSIFIER = "forward(x) takes images and returns logits"


def call(part: str, function: Callable[[], Any], form: str = PURIFIER) -> Any:
    """What a part's code returns; whatever it raises becomes one line with the part's name, and `form`, what it has to be.

    This project's own sentences pass, and so do memory and interruptions, which are nobody's promise; HYDRA_FULL_ERROR=1
    shows the traceback.
    """
    try:
        return function()
    except (torch.OutOfMemoryError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise ValueError(f"{part}: its code ends the process (exit {error.code}): raise an error instead") from error
    except Exception as error:
        if isinstance(error, ValueError | OSError) and not in_user_code(error):
            raise
        text = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{part}: its forward raised {type(error).__name__} ({text}): mend its code, {form}; HYDRA_FULL_ERROR=1 shows where"
        ) from error


@torch.no_grad()
def _check_purified(parts: Parts, ask: Asked) -> Tensor:
    """Images in, images out: shape, kind and range, and the input as it was."""
    given = ask.x.clone()
    purified = call(ask.purifier, lambda: parts.defense.purifier(parts.defense.as_model_input(given), ask.noise))
    if not isinstance(purified, Tensor):
        raise ValueError(f"{ask.purifier} returns {type(purified).__name__}: return the purified images, a tensor")
    if not torch.equal(given, ask.x):
        raise ValueError(f"{ask.purifier} writes into its input: work on a copy (x.clone()), or out of place")
    if not purified.is_floating_point():
        raise ValueError(f"{ask.purifier} returns {purified.dtype}: return floating point values in [0, 1]")
    side = getattr(parts.defense.purifier, "resize_out", None)
    shape = (*ask.x.shape[:2], side, side) if side else tuple(ask.x.shape)
    if tuple(purified.shape) != shape:
        raise ValueError(
            f"{ask.purifier} returns {tuple(purified.shape)} for images of {tuple(ask.x.shape)}: return the same shape"
        )
    if not bool(torch.isfinite(purified).all()):
        raise ValueError(f"{ask.purifier} returns values that are not finite: try dtype=float32 or milder settings")
    low, high = float(purified.min()), float(purified.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(
            f"{ask.purifier} returns values in [{low:.3g}, {high:.3g}]: images are in [0, 1], rescale or clamp them"
        )
    return purified.to(ask.x.dtype)


@torch.no_grad()
def _check_repeats(parts: Parts, ask: Asked, purified: Tensor) -> None:
    """The same noise again, with every global generator elsewhere: the same images, and the generators untouched."""
    with generators.seeded(OTHER):
        moved = generators.state()
        again = call(ask.purifier, lambda: parts.defense.purify(ask.x.clone(), ask.noise))
        after = generators.state()
    if not generators.same(moved, after):
        raise ValueError(
            f"{ask.purifier} draws from a global random generator: draw from its argument, noise.normal(x, 'a name'), so that an evaluation can be repeated"
        )
    if _distance(again, purified) > ask.repeated:
        raise ValueError(
            f"{ask.purifier} answers differently to the same image and noise: draw all randomness from its argument noise, and keep no state between calls"
        )


def _check_batch(parts: Parts, ask: Asked, purified: Tensor) -> None:
    """An image alone, and in another place: the same values."""
    count = len(ask.x)
    turned = list(reversed(range(count)))
    with torch.no_grad():
        other = call(ask.purifier, lambda: parts.defense.purify(ask.x[turned].clone(), ask.noise.take(turned)))
        alone = call(ask.purifier, lambda: parts.defense.purify(ask.x[-1:].clone(), ask.noise.rows(count - 1, count)))
    if _distance(other, purified[turned]) > ask.tolerance or _distance(alone, purified[-1:]) > ask.tolerance:
        raise ValueError(
            f"{ask.purifier} purifies an image differently in another batch: what it does to one image may not depend on the others, nor on its place among them"
        )


@torch.no_grad()
def _check_logits(parts: Parts, cell: Cell, ask: Asked, purified: Tensor) -> Tensor:
    """(B, classes), floating and finite; and as randomized as the defense says."""
    classes, defense = len(parts.dataset.classes), parts.defense
    given = purified.clone()
    logits = _logits(parts, ask, given, ask.noise)
    if not torch.equal(given, purified):
        raise ValueError(f"{ask.classifier} writes into its input: work on a copy (x.clone()), or out of place")
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(purified):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"{ask.classifier} returns {found} for {len(purified)} images: return logits (B, classes)")
    if logits.shape[-1] != classes:
        raise ValueError(
            f"{ask.classifier} has {logits.shape[-1]} classes, dataset={cell.names.dataset} has "
            f"{classes}: choose a classifier of that data set"
        )
    if not logits.is_floating_point():
        raise ValueError(f"{ask.classifier} returns {logits.dtype}: return logits, floating point values")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            f"{ask.purifier}, {ask.classifier}: logits of sample {ask.noise.ids[0]} are not "
            "finite: try dtype=float32 or milder settings"
        )
    if not defense.purifier.randomized:
        other = Noise(tuple(key ^ 1 for key in ask.noise.keys), ask.noise.ids, ask.noise.seed)
        again = call(ask.purifier, lambda: defense.purify(ask.x.clone(), other))
        if _distance(again, purified) > ask.repeated:
            raise ValueError(
                f"{ask.purifier} answers differently under other noise and says randomized = False: "
                "set randomized = True in its class"
            )
    return logits


@torch.no_grad()
def _check_classifier(parts: Parts, ask: Asked, purified: Tensor, logits: Tensor) -> None:
    """The same image again, with the global generators elsewhere, and alone: the same logits."""
    with generators.seeded(OTHER):
        again = _logits(parts, ask, purified, ask.noise)
    scale = max(1.0, float(logits.abs().max()))
    if _distance(again, logits) > ask.repeated * scale:
        raise ValueError(
            f"{ask.classifier} answers differently to the same image: a classifier may draw nothing and keep no state between calls"
        )
    last = ask.noise.rows(len(purified) - 1, len(purified))
    if _distance(_logits(parts, ask, purified[-1:], last), logits[-1:]) > ask.tolerance * scale:
        raise ValueError(
            f"{ask.classifier} classifies an image differently in another batch: its logits may not depend on the other images (is a network that it calls in training mode? call eval())"
        )


def _logits(parts: Parts, ask: Asked, x: Tensor, noise: Noise) -> Any:
    """What the classifier itself returns, before it is cast."""
    drawn = (noise,) if parts.defense.classifier_draws else ()
    given = x.to(parts.defense.classifiers_dtype(x))
    return call(ask.classifier, lambda: parts.defense.classifier(given, *drawn), CLASSIFIER)


def check_gradient(parts: Parts, cell: Cell, problem: Problem) -> None:
    """Raise ValueError if the view promises a gradient and the defense cuts it off: every step would stand still.

    Or if it answers otherwise while its gradient is followed: the attack would meet another defense than is scored.
    """
    if not parts.view.differentiable or "none" in (cell.names.view, cell.names.attack):
        return
    problem.tell("check", CHECKS, CHECKS)
    few = problem.take(range(min(2, len(problem.x))))
    noise = few.stream("attack").draws(1, 0, -3)
    observed, both = (
        few.view.observe(few.x, noise),
        f"purifier={cell.names.purifier}, classifier={cell.names.classifier}",
    )
    mend = "x has a gradient under this view: use view=bpda where the purifier has none"
    with torch.enable_grad():
        x = few.x.clone().requires_grad_(True)
        logits = call(both, lambda: few.view.logits(x, noise, observed), mend)
        found = None
        if logits.requires_grad:
            (found,) = call(both, lambda: torch.autograd.grad(logits.sum(), x, allow_unused=True), mend)
    with torch.no_grad():
        plain = call(both, lambda: few.view.logits(few.x.clone(), noise, observed))
    scale, models = max(1.0, float(plain.abs().max())), next((p.dtype for p in parts.defense.parameters()), x.dtype)
    if _distance(logits.detach(), plain) > ROUNDING.get(models, COARSE) * scale:
        raise ValueError(
            f"{both}: logits differ where a gradient is followed: what a defense returns may not depend on torch.is_grad_enabled() or x.requires_grad"
        )
    if found is None and not about(cell.attack, "gradient_free"):
        raise ValueError(
            f"view={cell.names.view} promises a gradient, and purifier={cell.names.purifier} with classifier={cell.names.classifier} has none (its logits do not depend on the image for autograd): use view=bpda, or attack=square view=query"
        )


def _distance(a: Any, b: Tensor) -> float:
    if not isinstance(a, Tensor) or a.shape != b.shape:
        return float("inf")
    return float((a - b).abs().max()) if len(b) else 0.0
