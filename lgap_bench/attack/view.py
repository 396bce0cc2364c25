"""Views: what the attacker may differentiate. An attack sees a defense only through one of these.

Each view maps images to logits twice: `logits`, with the gradient it grants, and `query`, the forward pass that the
attacker may look at to choose iterates (under `blind` that is the classifier alone: the attacker does not know more).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lgap_bench.defense import Defense, passes
from lgap_bench.noise import Noise

MAX_ROWS = 512  # images times draws in one forward pass; splits change float rounding only


class View:
    """A defense behind one view; base class, and as it stands the view `full`.

    `full` is the exact gradient through every step of the purification. What the purifier observes without gradient
    (LGAP's caption) is observed anew on the current iterate and held fixed within the step: "full, caption fixed".

    Attributes:
        approximate: whether the gradient stands in for the exact one, so that a record says how far it lies from it.
        differentiable: whether the view promises a gradient of its logits; one that has none is refused.
        own_slope: whether that gradient is the slope of these logits, which finite differences can hold it against.
    """

    approximate: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    own_slope: ClassVar[bool] = True

    def __init__(self, defense: Defense, max_rows: int = MAX_ROWS) -> None:
        self.defense = defense
        self.max_rows = max_rows

    @property
    def randomized(self) -> bool:
        """Whether the attacker sees different logits under different noise."""
        return self.defense.randomized

    def observe(self, x: Tensor, noise: Noise) -> list[str] | None:
        """The captions of the current iterate, shared by all of its draws."""
        return self.defense.observe(x, noise)

    def logits(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """Logits of (rows, C, H, W) images, one noise key per row, with this view's gradient."""
        return self.defense(x, noise, observed)

    @torch.no_grad()
    def query(self, x: Tensor, noise: Noise) -> Tensor:
        """Logits without gradient: (draws, B, classes) for B images and draws * B noise keys (draw-major)."""
        draws = len(noise) // len(x)
        observed = self.observe(x, noise.rows(0, len(x)))
        rows = x.repeat(draws, 1, 1, 1)
        repeated = None if observed is None else observed * draws
        parts = [
            self._forward(rows[a:b], noise.rows(a, b), None if repeated is None else repeated[a:b])
            for a, b in passes(len(rows), self.max_rows)
        ]
        return torch.cat(parts).view(draws, len(x), -1)

    def _forward(self, x: Tensor, noise: Noise, observed: list[str] | None) -> Tensor:
        return self.defense(x, noise, observed)


class Full(View):
    """Exact gradient through classifier and purifier, at the current caption."""


class Bpda(View):
    """Backward pass differentiable approximation (Athalye et al. 2018): purify forward, identity backward."""

    own_slope = False

    def logits(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """classifier(purified) with the gradient of classifier at purified, taken for x."""
        with torch.no_grad():
            purified = self.defense.purify(x, noise, observed)
        if purified.shape != x.shape:
            raise ValueError(
                f"attack.view=bpda needs a purifier that keeps the image size, got {tuple(purified.shape[-2:])} for "
                f"{tuple(x.shape[-2:])}: set purifier.resize_out to null"
            )
        # x - x.detach() is zero with the gradient of the identity.
        return self.defense.classify(purified + (x - x.detach()), noise)


class Blind(View):
    """Preprocessor-blind: the classifier alone; the purifier is unknown to the attacker."""

    @property
    def randomized(self) -> bool:
        """Whether the classifier itself draws."""
        return self.defense.classifier_draws

    def observe(self, x: Tensor, noise: Noise) -> None:
        """A blind attacker observes no captions."""

    def logits(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """Logits of the undefended classifier."""
        return self.defense.classify(x, noise)

    def _forward(self, x: Tensor, noise: Noise, observed: list[str] | None) -> Tensor:
        return self.defense.classify(x, noise)


class Caption(View):
    """Only the captioner is differentiated; the defense may be queried. For attacks with no classification term."""

    differentiable = False

    def logits(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """The defense's logits, cut off from x: whatever is added to the loss carries all of the gradient."""
        with torch.no_grad():
            return self.defense(x, noise, observed)


class Query(View):
    """The defense may be queried as often as one likes; no gradient. For attacks that search."""

    differentiable = False

    def logits(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """The defense's logits, cut off from x."""
        with torch.no_grad():
            return self.defense(x, noise, observed)
