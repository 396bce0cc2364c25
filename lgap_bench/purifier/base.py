"""What a purifier is: images in [0, 1] -> images in [0, 1]. It knows nothing of labels or attacks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from lgap_bench.noise import Noise


class Purifier(nn.Module):
    """Base class and, as it stands, the purifier `none`: the identity.

    Attributes:
        randomized: whether two calls with different noise may differ.
        depends_on_batch: whether an image is purified differently among others; a defect, which is evaluated only where a
            release that has it is reproduced, and then `max_rows` is part of a record's identity.
        captioner: the part that describes the image, or None; caption attacks reach for it.
    """

    randomized: bool = False
    depends_on_batch: bool = False
    captioner: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.captioner = None  # here and not on the class: a class attribute would hide a submodule of that name

    def observe(self, x: Tensor, noise: Noise) -> list[str] | None:
        """What the purifier reads off the image without gradient, one entry per row (LGAP: the captions), or None."""
        return None

    def words(self, observed: Sequence[str]) -> list[str]:
        """The sentences in what was observed, which may hold more than that."""
        return list(observed)

    def masks(self, observed: list[str] | None, x: Tensor) -> Tensor | None:
        """Where the images x (B, C, H, W) are regenerated, (B, 1, H, W) in [0, 1]; None for a purifier without a region."""
        return None

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """Purify x (B, C, H, W); differentiable in x. `observed` replaces what `observe` would find."""
        return x

    def path(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Iterator[Tensor] | None:
        """The images in [0, 1] that a purification of x passes through, as the classifier would get them; the last is `forward`'s.

        Diffusion purifiers have one per step. None where there is nothing between.
        """
        return None

    def remembering(self) -> AbstractContextManager[Any]:
        """A context, one chunk long, in which what was observed of an image is remembered; gives what remembers, or None."""
        return nullcontext()

    @property
    def guided(self) -> bool:
        """Whether a guidance steers the purification, which an attacker may leave out of the gradient."""
        return getattr(self, "guidance", None) is not None

    @property
    def guidance_in_gradient(self) -> bool:
        """Whether the exact gradient goes through a guidance, so that the view `detached` gives another gradient."""
        guidance: Any = getattr(self, "guidance", None)
        return self.guided and guidance.in_gradient

    def resampled(self, sampler: Any) -> Purifier:
        """The same purifier with another sampler, for the view `surrogate`. Raises ValueError if it has none."""
        raise ValueError(
            f"view=surrogate needs a purifier whose sampler can be replaced, and {type(self).__name__} has none: use purifier=diffpure or coup, or view=full"
        )

    def detached(self) -> Purifier:
        """The same purifier with its guidance hidden from gradients, sharing its networks; purifies bitwise alike.

        Raises ValueError if it has no guidance.
        """
        if not self.guided:
            raise ValueError(
                f"view=detached needs a purifier with guidance, and {type(self).__name__} has none here: use purifier=coup, or view=full"
            )
        guidance: Any = self.guidance
        other = copy.copy(self)  # shallow: the networks are shared, not held twice
        if "memory" in self.__dict__:  # a plan of its own: its steps hold less than those of the exact gradient
            other.__dict__["memory"] = self.__dict__["memory"].unmeasured()
        other._modules = {**self._modules, "guidance": guidance.detached()}  # a copy of a module shares this table
        return other
