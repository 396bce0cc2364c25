"""What a purifier is: images in [0, 1] -> images in [0, 1]. It knows nothing of labels or attacks."""

from __future__ import annotations

from torch import Tensor, nn

from lgap_bench.noise import Noise


class Purifier(nn.Module):
    """Base class and, as it stands, the purifier `none`: the identity.

    Attributes:
        randomized: whether two calls with different noise may differ.
        captioner: the part that describes the image, or None; caption attacks reach for it.
    """

    randomized: bool = False
    captioner: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.captioner = None  # here and not on the class: a class attribute would hide a submodule of that name

    def observe(self, x: Tensor, noise: Noise) -> list[str] | None:
        """What the purifier reads off the image without gradient, one entry per row (LGAP: the captions), or None."""
        return None

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """Purify x (B, C, H, W); differentiable in x. `observed` replaces what `observe` would find."""
        return x
