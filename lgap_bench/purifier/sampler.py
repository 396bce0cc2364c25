"""Samplers: which steps a trajectory has, and one reverse step each, (x_t, e, v, step, n, g) -> x_s with s < t.

x_t is the state, e the noise in it, v the network's variance output if it has one, n standard normal noise where the
sampler `draws` it, g the guidance, a gradient of a log-density that is added to the score -e / sqrt(1 - a_t).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lgap_bench.prior import schedule
from lgap_bench.prior.schedule import Step
from lgap_bench.runtime.choices import require_choices


@dataclass(frozen=True)
class DDIM:
    """DDIM with eta = 0 (Song et al. 2021a, eq. 12): x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) e; draws no noise.

    x_0 = (x_t - sqrt(1 - a_t) e) / sqrt(a_t), not clipped (Stable Diffusion's setting).

    Args:
        calls: network calls, evenly spaced from t_star down; null for every step of the schedule.
    """

    calls: int | None = None
    draws: ClassVar[bool] = False

    def steps(self, prior: Any, t_star: float) -> list[Step]:
        """Discrete steps from index t_star * T - 1 to the end of the trajectory."""
        return discrete(prior, t_star, self.calls)

    def __call__(
        self, x_t: Tensor, e: Tensor, v: Tensor | None, step: Step, n: Tensor | None = None, g: Tensor | None = None
    ) -> Tensor:
        """x_s; deterministic."""
        e = guided(e, g, step)
        return step.a_s**0.5 * clean(x_t, e, step) + (1 - step.a_s) ** 0.5 * e


@dataclass(frozen=True)
class DDPM:
    """Ancestral sampling (Ho et al. 2020, eqs. 6, 7 and 11); the last step adds no noise.

    Args:
        variance: `fixed_small` (the posterior's), `fixed_large` (beta; the posterior's in the last step),
            `learned_range` (between both on a log scale, by the network's second half; Nichol and Dhariwal 2021, eq. 15).
        clip: clip x_0 to [-1, 1] at every step.
        calls: as DDIM's; strides use the same formulas with 1 - a_t / a_s for beta.
    """

    variance: Literal["fixed_small", "fixed_large", "learned_range"] = "fixed_small"
    clip: bool = True
    calls: int | None = None
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_choices(self, "purifier.sampler")

    def steps(self, prior: Any, t_star: float) -> list[Step]:
        """Discrete steps from index t_star * T - 1 to the end of the trajectory."""
        return discrete(prior, t_star, self.calls)

    def __call__(
        self, x_t: Tensor, e: Tensor, v: Tensor | None, step: Step, n: Tensor | None = None, g: Tensor | None = None
    ) -> Tensor:
        """x_s = mean + variance g + sqrt(variance) n: guidance moves the mean after x_0 was clipped (Dhariwal and Nichol
        2021, algorithm 1), so that clipping cannot hide it."""
        mean, log_variance = self.moments(x_t, e, v, step)
        std: Any = math.exp(0.5 * log_variance) if isinstance(log_variance, float) else torch.exp(0.5 * log_variance)
        if g is not None:
            mean = mean + std**2 * g
        return mean if step.last or n is None else mean + std * n

    def moments(self, x_t: Tensor, e: Tensor, v: Tensor | None, step: Step) -> tuple[Tensor, Tensor | float]:
        """Mean and log-variance of p(x_s | x_t)."""
        x_0 = clean(x_t, e, step)
        if self.clip:
            x_0 = x_0.clamp(-1, 1)
        kept = step.a_t / step.a_s  # alpha of this step; its beta is 1 - kept
        mean = (step.a_s**0.5 * (1 - kept) * x_0 + kept**0.5 * (1 - step.a_s) * x_t) / (1 - step.a_t)
        small, large = math.log(posterior(step)), math.log(1 - kept)
        if step.last and step.a_before is not None and self.variance == "fixed_large":
            large = small  # as in Ho et al.'s code, on which the releases build
        if self.variance != "learned_range":
            return mean, small if self.variance == "fixed_small" else large
        if v is None:
            raise ValueError(
                "purifier.sampler.variance=learned_range, and the prior predicts no variance: use fixed_small or fixed_large"
            )
        share = (v + 1) / 2
        return mean, share * large + (1 - share) * small


@dataclass(frozen=True)
class ReverseSDE:
    """Euler-Maruyama on the reverse VP-SDE (Song et al. 2021b; DiffPure and COUP), t in [0, 1]:

        x <- x + h (beta x / 2 - beta e / sqrt(1 - a)) + sqrt(beta h) n

    Args:
        dt: step length in [0, 1]; has to divide t_star. The last step ends at 1e-5 and is that much shorter.
        noise: false leaves the Brownian term out (COUP's case study).
        last_noise: whether the last step adds noise too, as DiffPure's solver does (std 0.011 in [-1, 1] at dt 1e-3).
    """

    dt: float = 1e-3
    noise: bool = True
    last_noise: bool = True
    score_weight: ClassVar[float] = 1.0

    @property
    def draws(self) -> bool:
        """Whether steps draw noise."""
        return self.noise

    def steps(self, prior: Any, t_star: float) -> list[Step]:
        """Continuous steps from t_star to 1e-5."""
        grid = schedule.time_grid(t_star, self.dt)
        steps = [
            Step(i, prior.label(t), schedule.alpha(t), schedule.alpha(max(t - h, 0.0)), t, h)
            for i, (t, h) in enumerate(grid)
        ]
        return [*steps[:-1], replace(steps[-1], last=True)]

    def __call__(
        self, x_t: Tensor, e: Tensor, v: Tensor | None, step: Step, n: Tensor | None = None, g: Tensor | None = None
    ) -> Tensor:
        """x_s; a variance output is left out, as DiffPure does."""
        e = guided(e, g, step)
        x_s = x_t + step.h * self.drift(x_t, e, step)
        if n is None or (step.last and not self.last_noise):
            return x_s
        return x_s + (schedule.beta(step.t) * step.h) ** 0.5 * n

    def drift(self, x_t: Tensor, e: Tensor, step: Step) -> Tensor:
        """dx per unit of time, backwards: beta x / 2 - beta e / sqrt(1 - a)."""
        beta = schedule.beta(step.t)
        return 0.5 * beta * x_t - self.score_weight * beta / (1 - step.a_t) ** 0.5 * e


@dataclass(frozen=True)
class ProbabilityFlow(ReverseSDE):
    """Euler on the probability flow ODE (Song et al. 2021b, eq. 13): half the score, no noise."""

    noise: bool = False
    score_weight: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        if self.noise:
            raise ValueError("purifier.sampler.noise=true with the probability flow ODE: it has none, use reverse_sde")


def guided(e: Tensor, g: Tensor | None, step: Step) -> Tensor:
    """e - sqrt(1 - a_t) g, the noise whose score has the guidance in it (Dhariwal and Nichol 2021, section 4.2)."""
    return e if g is None else e - (1 - step.a_t) ** 0.5 * g


def clean(x_t: Tensor, e: Tensor, step: Step) -> Tensor:
    """x_0 = (x_t - sqrt(1 - a_t) e) / sqrt(a_t), what is left when the noise e is taken out of x_t."""
    return (x_t - (1 - step.a_t) ** 0.5 * e) / step.a_t**0.5


def posterior(step: Step) -> float:
    """Variance of q(x_s | x_t, x_0) (Ho et al. 2020, eq. 7). In the last step, which has none, that of the step before,
    as in the releases that GDMP and DiffPure build on; no noise is added there, guidance is multiplied by it."""
    a_t, a_s = (step.a_before, step.a_t) if step.last and step.a_before is not None else (step.a_t, step.a_s)
    return max((1 - a_t / a_s) * (1 - a_s) / (1 - a_t), 1e-20)  # its logarithm is taken


def discrete(prior: Any, t_star: float, calls: int | None) -> list[Step]:
    """Integer steps: all of them from index t_star * T - 1 down to 0, or `calls` evenly spaced ones."""
    times = schedule.discrete_times(t_star, calls, prior.train_steps)
    return visited(prior, times, [*times[1:], -1])


def visited(prior: Any, times: list[int], targets: list[int]) -> list[Step]:
    """Steps between given timesteps; a target below 0 is the end of the trajectory."""
    alpha: Callable[[int], float] = prior.alpha
    last = len(times) - 1
    before = [None, *(alpha(t) for t in times)]
    return [
        Step(i, t, alpha(t), alpha(s), (t + 1) / prior.train_steps, last=i == last, a_before=before[i])
        for i, (t, s) in enumerate(zip(times, targets, strict=True))
    ]
