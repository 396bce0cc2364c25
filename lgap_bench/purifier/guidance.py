"""Guidance: terms added to the prior's score, each the gradient of a log-density at the state x_t.

A guidance is prepared once per purification with `term(image, x, noise)` and then called at every step. Everything is
summed over samples, never averaged, so that its strength does not depend on the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lgap_bench.noise import Noise
from lgap_bench.prior.schedule import Step
from lgap_bench.purifier.diffusion import Term
from lgap_bench.purifier.sampler import clean
from lgap_bench.runtime.choices import require_choice

Image = Callable[[Tensor], Tensor]  # a state of the prior -> images (B, C, H, W)
Point = Literal["x_t", "x_0"]
Likeness = Literal["mse", "ssim"]


class Guidance(nn.Module):
    """Base class: what a purifier asks of a guidance.

    Attributes:
        draws: whether it draws noise, which makes the purifier randomized.
        detach_guidance: whether `term` hides its gradient from whoever differentiates the purifier.
    """

    draws: bool = False
    detach_guidance: bool = False

    @property
    def in_gradient(self) -> bool:
        """Whether the exact gradient of the purifier goes through it, so that hiding it makes another gradient."""
        return not self.detach_guidance

    def term(self, image: Image, x: Tensor, noise: Noise, tag: str = "") -> Term:
        """The guidance for one purification.

        Args:
            image: how the classifier sees a state: in [0, 1] unless noise leads out of it, and of the size that it gets.
            x: what is purified, in the prior's own space.
            tag: names the round in the noise.
        """
        raise NotImplementedError

    def detached(self) -> Guidance:
        """The same guidance, hidden from gradients; it shares its networks."""
        other = copy.copy(self)
        other.detach_guidance = True
        return other


class ClassifierConfidence(Guidance):
    """weight * grad log max_k p(k | x_t), the classifier's confidence in whatever it sees (COUP, eq. 5).

    No label is involved. The classifier is the bare one of the config, as it is before any fine-tuning.

    Args:
        classifier: images in [0, 1] to logits. It gets (x_t + 1) / 2, which is noisy and may leave [0, 1], resized as the
            defense's classifier gets its images.
        weight: lambda of the paper.
        temperature: of the softmax; 1 in the paper.
        at: `x_t`, the noisy state itself (the paper; decoded if the prior is latent), or `x_0`, its denoised estimate
            with the predicted noise held fixed in this gradient (ours, for latent priors, whose decoder knows no noise).
        detach_guidance: true hides the term from the attacker's gradient, as COUP's release does; false is exact, with
            second derivatives of the classifier. Purified images are the same either way.
    """

    def __init__(
        self,
        classifier: nn.Module,
        weight: float = 1.0,
        temperature: float = 1.0,
        at: Point = "x_t",
        detach_guidance: bool = False,
    ) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"purifier.guidance.weight={weight} is negative: use 0 for none, 1 as the paper")
        if not temperature > 0:
            raise ValueError(f"purifier.guidance.temperature={temperature} is not positive: use 1 as the paper")
        require_choice("purifier.guidance.at", at, Point)
        self.classifier = classifier
        self.weight, self.temperature, self.at, self.detach_guidance = weight, temperature, at, detach_guidance

    def term(self, image: Image, x: Tensor, noise: Noise, tag: str = "") -> Term:
        """The gradient at (x_t, e, step); independent of x and of noise."""

        def gradient(x_t: Tensor, e: Tensor, step: Step) -> Tensor:
            point = clean(x_t, e, step) if self.at == "x_0" else x_t
            # Chain rule: with e held fixed, d x_0 / d x_t = 1 / sqrt(a_t).
            scale = self.weight / (step.a_t**0.5 if self.at == "x_0" else 1.0)
            return scale * ascent(lambda z: self.log_confidence(image(z)), point, self.detach_guidance)

        return gradient

    @property
    def in_gradient(self) -> bool:
        """As the base class's; with weight 0 the term is a constant."""
        return self.weight != 0 and super().in_gradient

    def log_confidence(self, images: Tensor) -> Tensor:
        """log max_k p(k | x) of images in [0, 1], (B,)."""
        weight = next(self.classifier.parameters(), images)  # the state is float32, the classifier may be bfloat16
        logits = self.classifier(images.to(weight.dtype)).to(images.dtype)
        if len(logits) != len(images):  # networks that flatten whatever is left of a picture of another size
            raise ValueError(
                f"purifier.guidance: its classifier answers {len(logits)} times to {len(images)} images of {tuple(images.shape[-2:])}: it needs another size"
            )
        return (logits / self.temperature).log_softmax(-1).amax(-1)


class Distance(Guidance):
    """Minus the distance of x_t to the input at the same noise level (GDMP, Wang et al. 2022, section 3.2).

    The input is noised anew at every step. The strength grows with the noise: scale * 3 / (2 eps) * sqrt((1 - a_t) / a_t).
    Deviations: the release averages the squared error over the batch, so that its strength falls with the batch size;
    here each sample has the release's strength at batch size 1. With the DDPM sampler the term moves the mean by Sigma times
    itself, as in the release; with the others it is added to the score.

    Args:
        kind: `mse` (mean over pixels) or `ssim` (structural similarity, which is raised).
        scale: the release's guide_scale: 1000 with ssim, 60000 with mse.
        eps: the perturbation that the strength is set for, in [0, 1] pixel units; the release's 8/255.
        detach_guidance: as in `ClassifierConfidence`; the release detaches.
    """

    draws = True

    def __init__(
        self, kind: Likeness = "ssim", scale: float = 1000.0, eps: float | str = "8/255", detach_guidance: bool = False
    ) -> None:
        super().__init__()
        from lgap_bench.cell.values import fraction

        require_choice("purifier.guidance.kind", kind, Likeness)
        if scale < 0:
            raise ValueError(f"purifier.guidance.scale={scale} is negative: use 0 for none, 1000 as the release")
        self.kind, self.scale, self.detach_guidance = kind, scale, detach_guidance
        self.eps = fraction(eps, "purifier.guidance.eps")

    def term(self, image: Image, x: Tensor, noise: Noise, tag: str = "") -> Term:
        """The gradient at (x_t, e, step) towards the input x, which is noised with `noise` under its own names."""

        def gradient(x_t: Tensor, e: Tensor, step: Step) -> Tensor:
            n = noise.normal(x, f"{tag}reference {step.index}")
            target = step.a_t**0.5 * x + (1 - step.a_t) ** 0.5 * n
            if self.detach_guidance:
                target = target.detach()
            scale = self.scale * 1.5 / self.eps * ((1 - step.a_t) / step.a_t) ** 0.5
            return scale * ascent(lambda z: self.likeness(z, target), x_t, self.detach_guidance)

        return gradient

    def likeness(self, a: Tensor, b: Tensor) -> Tensor:
        """What the guidance raises, (B,)."""
        return -(a - b).square().flatten(1).mean(1) if self.kind == "mse" else ssim(a, b)


def ascent(value: Any, point: Tensor, detach: bool) -> Tensor:
    """grad of sum(value(point)) at `point`: with its own graph where a gradient is asked for and not detached.

    Attention is computed without fused kernels, which have no second derivative; detached too, so that images agree.
    """
    exact = torch.is_grad_enabled() and point.requires_grad and not detach
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        # A node of its own: `value` may look at the same tensor as a constant too, as Distance does at the input itself.
        at = point.view_as(point) if exact else point.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(value(at).sum(), at, create_graph=exact)
    return gradient


def ssim(a: Tensor, b: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity (Wang et al. 2004) per sample, (B,), with zero padding and constants for a range of 1."""
    places = torch.arange(window, dtype=a.dtype, device=a.device) - window // 2
    line = torch.exp(-places.square() / (2 * sigma**2))
    line = line / line.sum()
    channels = a.shape[1]
    kernel = (line[:, None] * line[None, :]).expand(channels, 1, window, window)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel, padding=window // 2, groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    ratio = ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return ratio.flatten(1).mean(1)
