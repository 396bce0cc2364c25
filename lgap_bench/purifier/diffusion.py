"""The loop that every diffusion purifier shares: forward noise, then reverse steps with guidance.

x_t* = sqrt(a_t*) x + sqrt(1 - a_t*) n
for t = t* ... 0:   e = prior.noise(x_t, t, condition) - sqrt(1 - a_t) sum_k guidance_k(x_t, t)
                    x_s = sampler(x_t, e, a_t, a_s, n_t)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lgap_bench.noise import Noise


class Prior(Protocol):
    """A noise network with its schedule, in pixel or latent space."""

    def alpha(self, t: int) -> float:
        """Cumulative signal a_t; t < 0 is the end of the trajectory."""

    def noise(self, z: Tensor, t: int, condition: Any) -> Tensor:
        """The noise in x_t."""


Sampler = Callable[[Tensor, Tensor, float, float, Tensor | None], Tensor]
Guidance = Callable[[Tensor, int], Tensor]  # gradient of a log-density at x_t, the shape of x_t


def add_noise(x: Tensor, a: float, noise: Noise) -> Tensor:
    """x_t* = sqrt(a) x + sqrt(1 - a) n (Ho et al. 2020, eq. 4)."""
    return a**0.5 * x + (1 - a) ** 0.5 * noise.normal(x, "forward")


def reverse(
    prior: Prior,
    x: Tensor,
    times: Sequence[int],
    targets: Sequence[int],
    condition: Any,
    sampler: Sampler,
    noise: Noise,
    guidance: Sequence[Guidance] = (),
    sampler_noise: bool = False,
    recompute: bool = True,
) -> Tensor:
    """Denoise x from times[0] to targets[-1]; differentiable through every step and the guidance.

    Args:
        times: decreasing timesteps at which the network is called.
        targets: where each of these steps leads; below 0 is the end of the trajectory.
        sampler_noise: whether the sampler is handed noise (stochastic samplers).
        recompute: under autograd keep only each step's input and recompute the step backward: memory of one step
            instead of all, for one more forward. Noise is keyed, so the recomputed step is the same.
    """

    def step(x_t: Tensor, t: int, s: int) -> Tensor:
        e = prior.noise(x_t, t, condition)
        for term in guidance:
            e = e - (1 - prior.alpha(t)) ** 0.5 * term(x_t, t)
        n = noise.normal(x_t, f"step {t}") if sampler_noise else None
        return sampler(x_t, e, prior.alpha(t), prior.alpha(s), n)

    for t, s in zip(times, targets, strict=True):
        x = recomputed(step, x, t, s) if recompute else step(x, t, s)
    return x


def recomputed(function: Callable[..., Tensor], x: Tensor, *rest: object) -> Tensor:
    """function(x, ...) that stores only x for the backward pass, where a gradient is asked for at all."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return function(x, *rest)
    return checkpoint(function, x, *rest, use_reentrant=False, preserve_rng_state=False)
