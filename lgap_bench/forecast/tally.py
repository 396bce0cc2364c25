"""What an attack asks of a defense, counted: parts that answer at once stand where the networks would be.

The attack is the cell's own and runs as it would. The stand-in's classifier always answers the images' own class, so that none is
ever broken and no attack ends early.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.captioner.seen import Seen
from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier

SURE = 10.0  # logit of the class that a stand-in always answers; the others lie near 0

# A kind of work: a part, and whether a gradient is taken through it. Parts are `purify`, `classify`, `caption`, `detect`,
# `path` (a purification whose every state is decoded), `caption loss`, `presence` (what attacks lower at a detector), `other` (an attacker's own classifier), and `purify (detached)` and
# the like for what a view differentiates in place of the purifier.
Kind = tuple[str, bool]
Work = Mapping[Kind, tuple[float, float]]  # calls and rows of each kind


@dataclass
class Tally:
    """How often what was asked, by the number of rows of each call."""

    calls: Counter[tuple[Kind, int]] = field(default_factory=Counter)

    def add(self, part: str, x: Tensor) -> None:
        """One call on these rows."""
        if len(x):
            self.calls[(part, torch.is_grad_enabled() and x.requires_grad), len(x)] += 1


class Counted(Purifier):
    """Stands in for a purifier: returns what it is given, and counts.

    Args:
        inner: the real one, which is asked what it is and never for images.
        part: what its passes are called.
    """

    def __init__(self, inner: Purifier, tally: Tally, part: str = "purify") -> None:
        super().__init__()
        self.inner, self.tally, self.part = inner, tally, part
        self.randomized, self.depends_on_batch = inner.randomized, inner.depends_on_batch
        self.observes = type(inner).observe is not Purifier.observe
        self.seen: Seen | None = None
        if inner.captioner is not None:
            self.captioner = CountedCaptioner(inner.captioner, tally)
        if (detector := getattr(inner, "detector", None)) is not None:
            self.detector = CountedDetector(detector, tally)

    def observe(self, x: Tensor, noise: Noise) -> list[str] | None:
        """What the real purifier would look at: of images that it remembers, nothing."""
        if not self.observes:
            return None
        if hasattr(self, "detector"):
            self.tally.add("detect", x)
        captioner: Any = self.captioner
        if captioner is None or getattr(self.inner, "text", "caption") != "caption":
            return [""] * len(x)
        said: list[str] = captioner(x, noise) if self.seen is None else self.seen.captions(captioner, x, noise)
        return said

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """One pass."""
        if observed is None:
            self.observe(x, noise)
        self.tally.add(self.part, x)
        return x.clone()

    def path(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Iterator[Tensor] | None:
        """As many states as the real one's path has."""
        if type(self.inner).path is Purifier.path:
            return None
        self.tally.add("path", x)
        steps: Any = getattr(self.inner, "steps", ())
        rounds: Any = getattr(self.inner, "rounds", 1)
        return (x.clone() for _ in range(rounds * (len(steps) + 1)))

    @contextmanager
    def remembering(self) -> Iterator[Any]:
        """As the real one's, where it remembers anything."""
        with self.inner.remembering() as seen:
            self.seen = Seen() if isinstance(seen, Seen) else None
            try:
                yield self.seen
            finally:
                self.seen = None

    @property
    def guided(self) -> bool:
        """As the real one's."""
        return self.inner.guided

    @property
    def guidance_in_gradient(self) -> bool:
        """As the real one's."""
        return self.inner.guidance_in_gradient

    def resampled(self, sampler: Any) -> Purifier:
        """The real one's, counted apart."""
        return Counted(self.inner.resampled(sampler), self.tally, "purify (surrogate)")

    def detached(self) -> Purifier:
        """The real one's, counted apart."""
        return Counted(self.inner.detached(), self.tally, "purify (detached)")


class CountedCaptioner(nn.Module):
    """Stands in for a captioner; it has a loss where that one has."""

    def __init__(self, inner: Any, tally: Tally) -> None:
        super().__init__()
        self.tally = tally
        self.by_image = getattr(inner, "by_image", False)
        if hasattr(inner, "loss"):  # attacks ask whether there is one
            self.loss = self._loss

    def forward(self, x: Tensor, noise: Noise | None = None) -> list[str]:
        """One sentence for all."""
        self.tally.add("caption", x)
        return ["an image"] * len(x)

    def _loss(self, x: Tensor, captions: Sequence[str]) -> Tensor:
        self.tally.add("caption loss", x)
        return x.flatten(1).mean(1)


class CountedDetector(nn.Module):
    """Stands in for a detector that can be attacked."""

    def __init__(self, inner: Any, tally: Tally) -> None:
        super().__init__()
        self.tally, self.attackable, self.names = tally, inner.attackable, inner.names

    def presence(self, x: Tensor) -> Tensor:
        """Of every image a number with a gradient."""
        self.tally.add("presence", x)
        return x.flatten(1).mean(1)


class CountedClassifier(nn.Module):
    """Stands in for a classifier: always answers class 0, with a gradient, and counts.

    Args:
        classes: how many logits it has.
        part: what its passes are called.
    """

    def __init__(self, inner: Any, tally: Tally, classes: int, part: str = "classify") -> None:
        super().__init__()
        self.tally, self.part = tally, part
        self.randomized = bool(getattr(inner, "randomized", False))
        self.slopes = torch.linspace(-0.1, 0.1, classes)
        self.sure = SURE * (torch.arange(classes) == 0)

    def forward(self, x: Tensor, *noise: Noise) -> Tensor:
        """Logits (B, classes)."""
        self.tally.add(self.part, x)
        return self.sure.to(x) + x.flatten(1).mean(1, keepdim=True) * self.slopes.to(x)
