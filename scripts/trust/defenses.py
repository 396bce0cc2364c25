"""Purifiers and classifiers whose true robustness is known: broken ones that hide it, and sound ones that do not.

All stand before, or around, the miniature's standard classifier, which keeps nothing under linf 48/255; so what does not
change an image by much keeps nothing either, whatever it does to gradients.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.classifier.wide_resnet import load
from lgap_bench.dataset.digits import digits
from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier


class Quantise(Purifier):
    """Rounds to a few levels: its gradient is zero nearly everywhere."""

    def __init__(self, levels: int = 4) -> None:
        super().__init__()
        self.steps = levels - 1

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x in `levels` shades."""
        return (x * self.steps).round() / self.steps


class Detach(Purifier):
    """The identity without its gradient."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x, cut off."""
        return x.detach()


class Threshold(Purifier):
    """Black and white: zero gradient."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x > 1/2."""
        return (x > 0.5).to(x.dtype) + 0 * x


class RoundedDct(Purifier):
    """Rounds the coefficients of a cosine transform, as JPEG does: zero gradient in another basis."""

    def __init__(self, step: float = 0.5) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x with coarse coefficients."""
        side = x.shape[-1]
        places = torch.arange(side, dtype=x.dtype, device=x.device)
        basis = torch.cos(math.pi / side * (places[None] + 0.5) * places[:, None])
        basis = basis / basis.norm(dim=1, keepdim=True)
        coefficients = basis @ x @ basis.T
        return (basis.T @ ((coefficients / self.step).round() * self.step) @ basis).clamp(0, 1)


class StochasticRounding(Purifier):
    """Rounds up or down at random, by how near: the mean is x, every draw's gradient is zero."""

    randomized = True

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x in 8 shades."""
        return ((7 * x + noise.uniform(x, "rounding") - 0.5).round() / 7).clamp(0, 1)


class Ripple(Purifier):
    """Adds a ripple too fine to see and too steep for a gradient: shattered (Athalye et al. 2018)."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x plus 0.004 of a fast wave."""
        return (x + 0.004 * torch.sin(3000 * x)).clamp(0, 1)


class _Backward(torch.autograd.Function):
    """The identity with a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str) -> Tensor:
        ctx.kind = kind
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        if ctx.kind == "reversed":
            return -gradient, None
        if ctx.kind == "noise":
            generator = torch.Generator().manual_seed(int(1e6 * gradient.abs().sum().double().remainder(1000)))
            return torch.randn(gradient.shape, generator=generator).to(gradient) * gradient.abs().mean(), None
        if ctx.kind == "flat":
            return gradient * 1e-45 * 1e-10, None
        return gradient.sqrt() - gradient.sqrt() + float("nan"), None  # kind `nan`


class OddGradient(Purifier):
    """The identity whose gradient is reversed, noise, too small for its dtype, or not a number."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x."""
        out: Tensor = _Backward.apply(x, self.kind)
        return out


class HalfHidden(Purifier):
    """Three quarters of the pixels come through without their gradient."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x."""
        mask = (torch.arange(x[0].numel(), device=x.device).view(x.shape[1:]) % 4 == 0).to(x.dtype)
        return mask * x + (1 - mask) * x.detach()


class Jitter(Purifier):
    """Adds noise that one draw of a gradient drowns in."""

    randomized = True

    def __init__(self, std: float = 0.2) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x plus Gaussian noise."""
        return (x + self.std * noise.normal(x, "jitter")).clamp(0, 1)


class BatchMean(Purifier):
    """Takes nine tenths of the batch's mean away: what an image becomes depends on its neighbours."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x less the others."""
        return (x - 0.9 * x.mean(0, keepdim=True)).clamp(0, 1)


class Saturated(nn.Module):
    """The classifier with logits so large that the cross-entropy has no gradient in float32."""

    def __init__(self, weights: str, scale: float = 1e4) -> None:
        super().__init__()
        self.model, self.scale = load(weights), scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits times `scale`."""
        return self.model(x) * self.scale


class Argmax(nn.Module):
    """The classifier that answers with its decision alone."""

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.model = load(weights)

    def forward(self, x: Tensor) -> Tensor:
        """One-hot decisions."""
        logits = self.model(x)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)


class Negative(Purifier):
    """In a tenth of its draws it hands on the negative, which is classified wrong: 90 % is the truth, not 72 %."""

    randomized = True

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x, or 1 - x."""
        flip = (noise.uniform(x.flatten(1)[:, :1], "flip") < self.rate).view(-1, 1, 1, 1)
        return torch.where(flip, 1 - x, x)


class Linear(nn.Module):
    """Ridge regression on the training digits: its robust accuracy is known exactly, see `robust`.

    logits = (mean over channels of x, flattened, and 1) W
    """

    weight: Tensor

    def __init__(self, ridge: float = 30.0) -> None:
        super().__init__()
        data = digits("train")
        x = self.features(data.images[:].double())
        target = nn.functional.one_hot(data.labels, 10).double() - 0.1
        gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=torch.float64)
        self.register_buffer("weight", 10 * torch.linalg.solve(gram, x.T @ target).float())

    @staticmethod
    def features(x: Tensor) -> Tensor:
        """(B, H W + 1) of images (B, C, H, W)."""
        flat = x.mean(1).flatten(1)
        return torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10)."""
        return self.features(x) @ self.weight.to(x.dtype)

    def robust(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """Whether no image of the linf ball, inside [0, 1], is classified otherwise, (B,): per wrong class the worst image
        is a corner, all channels moved alike."""
        safe = self(x).argmax(1) == y
        for other in range(10):
            direction = (self.weight[:-1, other][None] - self.weight[:-1].T[y]).view(len(x), 1, *x.shape[2:])
            worst = (x + eps * direction.sign()).clamp(0, 1)
            logits = self(worst)
            lost = logits[:, other] >= logits.gather(1, y[:, None]).squeeze(1)
            safe &= ~lost | (y == other)
        return safe
