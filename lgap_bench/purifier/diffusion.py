"""The loop that every diffusion purifier shares: forward noise, then reverse steps with guidance.

x_t* = sqrt(a_t*) x + sqrt(1 - a_t*) n                          or x_t* = x where a paper leaves the noise out
for t = t* ... 0:   e, v = prior.predict(x_t, t, condition)
                    g = sum_k guidance_k(x_t, e, t)
                    x_s = sampler(x_t, e, v, t, n_t, g)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from lgap_bench.noise import Noise
from lgap_bench.prior.schedule import Step
from lgap_bench.purifier.memory import recomputed


class Prior(Protocol):
    """A noise network with its schedule, in pixel or latent space."""

    def alpha(self, t: int) -> float:
        """Cumulative signal a_t; t < 0 is the end of the trajectory."""

    def predict(self, x_t: Tensor, label: float, condition: Any) -> tuple[Tensor, Tensor | None]:
        """The noise in x_t, and the network's variance output if it has one."""


class Sampler(Protocol):
    """One reverse step; see `sampler`."""

    @property
    def draws(self) -> bool:
        """Whether steps draw noise."""

    def __call__(
        self, x_t: Tensor, e: Tensor, v: Tensor | None, step: Step, n: Tensor | None, g: Tensor | None
    ) -> Tensor:
        """x_s."""


Term = Callable[[Tensor, Tensor, Step], Tensor]  # (x_t, e, step) -> gradient of a log-density at x_t, of its shape


def add_noise(x: Tensor, a: float, noise: Noise, tag: str = "forward") -> Tensor:
    """x_t* = sqrt(a) x + sqrt(1 - a) n (Ho et al. 2020, eq. 4)."""
    return a**0.5 * x + (1 - a) ** 0.5 * noise.normal(x, tag)


def reverse(
    prior: Prior,
    x: Tensor,
    steps: Sequence[Step],
    condition: Any,
    sampler: Sampler,
    noise: Noise,
    guidance: Sequence[Term] = (),
    kept: int | None = None,
    tag: str = "",
    captured: Sequence[Tensor] = (),
) -> Tensor:
    """Denoise x along `steps`; differentiable through every step and the guidance.

    Args:
        steps: from the sampler, in the order of the trajectory.
        guidance: terms added to the score.
        kept: under autograd, how many steps, the last ones, keep their graph; the others keep only their input and are
            computed again backward. Null for all. Noise is keyed, so a recomputed step is the same; see `memory`.
        tag: prefix of the noise's names, where a purifier runs the loop more than once.
        captured: what the guidance looks at besides the state, where it has a gradient.
    """
    for state in states(prior, x, steps, condition, sampler, noise, guidance, kept, tag, captured):
        x = state
    return x


def states(
    prior: Prior,
    x: Tensor,
    steps: Sequence[Step],
    condition: Any,
    sampler: Sampler,
    noise: Noise,
    guidance: Sequence[Term] = (),
    kept: int | None = None,
    tag: str = "",
    captured: Sequence[Tensor] = (),
) -> Iterator[Tensor]:
    """The states that `reverse` passes through, one after every step."""
    take = transition(prior, condition, sampler, noise, guidance, tag)
    recompute = 0 if kept is None else max(0, len(steps) - kept)
    for i, step in enumerate(steps):
        x = recomputed(take, x, step, captured=captured) if i < recompute else take(x, step)
        yield x


def transition(
    prior: Prior, condition: Any, sampler: Sampler, noise: Noise, guidance: Sequence[Term] = (), tag: str = ""
) -> Callable[[Tensor, Step], Tensor]:
    """One step of the trajectory, (x_t, step) -> x_s."""

    def take(x_t: Tensor, step: Step) -> Tensor:
        e, v = prior.predict(x_t, step.label, condition)
        g = total(guidance, x_t, e, step)
        n = noise.normal(x_t, f"{tag}step {step.index}") if sampler.draws else None
        return sampler(x_t, e, v, step, n, g)

    return take


def total(guidance: Sequence[Term], x_t: Tensor, e: Tensor, step: Step) -> Tensor | None:
    """The sum of the guidance's terms at x_t, or None without guidance."""
    g = None
    for term in guidance:
        each = term(x_t, e, step)
        g = each if g is None else g + each
    return g
