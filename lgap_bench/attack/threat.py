"""The threat: a norm and a budget in pixel units. Balls, projections, steepest steps and the final check in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lgap_bench.cell.values import fraction
from lgap_bench.noise import Noise
from lgap_bench.runtime.choices import require_choices

NEAR = 0.02  # rms per pixel: how far around an image a threat without a budget is asked what it is like there
TOLERANCE = 1e-6  # what float32 rounding may add at the edge of the ball or of [0, 1]


def _per_sample(x: Tensor, values: Tensor) -> Tensor:
    return values.view(-1, *([1] * (x.dim() - 1)))


@dataclass(frozen=True)
class Threat:
    """All images within `eps` of x in the `norm`, intersected with [0, 1].

    Attributes:
        norm: `linf` or `l2`.
        eps: budget in [0, 1] pixel units (linf) or the l2 length over all pixels; "8/255" is read as a fraction.
    """

    norm: Literal["linf", "l2"]
    eps: float

    def __post_init__(self) -> None:
        require_choices(self, "threat")
        object.__setattr__(self, "eps", fraction(self.eps, "threat.eps"))
        if not self.eps > 0 or (self.norm == "linf" and self.eps > 1):
            raise ValueError(f"threat.eps={self.eps:g} is not in (0, 1]: write 8/255")

    def local(self, x: Tensor) -> Threat:
        """The threat itself; of one without a budget, whose l2 ball holds all of [0, 1]^d, a small ball around images x."""
        diagonal = x[0].numel() ** 0.5
        if self.norm == "linf" or self.eps < diagonal * (1 - TOLERANCE):
            return self
        return Threat(self.norm, NEAR * diagonal)

    def length(self, delta: Tensor) -> Tensor:
        """The norm of each perturbation, (B,)."""
        flat = delta.flatten(1)
        return flat.abs().amax(1) if self.norm == "linf" else flat.norm(dim=1)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Nearest point of the ball, then of [0, 1] (which stays inside both balls, since x is in [0, 1])."""
        delta = x_adv - x
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            shrink = (self.eps / self.length(delta).clamp_min(1e-12)).clamp(max=1)
            delta = delta * _per_sample(delta, shrink)
        return (x + delta).clamp(0, 1)

    def ascend(self, gradient: Tensor, step_size: float) -> Tensor:
        """The step of this length that raises a linear function most: sign (linf) or normalised gradient (l2)."""
        if self.norm == "linf":
            return step_size * gradient.sign()
        # Without a gradient there is no direction: the image stays, instead of becoming NaN.
        return step_size * gradient / _per_sample(gradient, self.length(gradient).clamp_min(1e-12))

    def random(self, x: Tensor, noise: Noise) -> Tensor:
        """A uniform point of the ball around each image, clipped to [0, 1]."""
        if self.norm == "linf":
            return (x + (2 * noise.uniform(x, "start") - 1) * self.eps).clamp(0, 1)
        direction = noise.normal(x, "start")
        # A ball's volume grows as radius^d: without the root nearly all points would lie too near the centre.
        radius = noise.uniform(x.flatten(1)[:, :1], "radius").squeeze(1) ** (1 / x[0].numel())
        scale = self.eps * radius / self.length(direction).clamp_min(1e-12)
        return (x + direction * _per_sample(x, scale)).clamp(0, 1)

    def corner(self, x: Tensor, noise: Noise) -> Tensor:
        """A random point at the edge of the ball, where noise does most harm: a vertex (linf), any direction (l2)."""
        draw = noise.uniform(x, "corner") - 0.5 if self.norm == "linf" else noise.normal(x, "corner")
        return self.project(x + self.ascend(draw, self.eps), x)

    def check(self, x_adv: Tensor, x: Tensor, ids: tuple[int, ...], attack: str) -> None:
        """Raise ValueError naming the attack and the first sample outside the ball, outside [0, 1] or not finite."""
        finite = torch.isfinite(x_adv).flatten(1).all(1)
        boxed = (x_adv.flatten(1).amin(1) >= -TOLERANCE) & (x_adv.flatten(1).amax(1) <= 1 + TOLERANCE)
        inside = self.length(x_adv - x) <= self.eps + TOLERANCE * max(1.0, self.eps)
        for good, what in (
            (finite, "is not finite"),
            (boxed, "leaves [0, 1]"),
            (inside, f"leaves the {self.norm} ball of {self.eps:g}"),
        ):
            if not bool(good.all()):
                first = int((~good).nonzero()[0])
                raise ValueError(
                    f"attack={attack}: the image of sample {ids[first]} {what}: the attack is broken, no number is kept"
                )
