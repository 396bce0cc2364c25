"""Purification in pixel space: DiffPure (Nie et al. 2022), COUP (Zhang et al. 2024), GDMP (Wang et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor

from lgap_bench.noise import Noise
from lgap_bench.prior import schedule
from lgap_bench.prior.pixel import PixelPrior
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.diffusion import Term, add_noise, reverse, states, transition
from lgap_bench.purifier.guidance import Guidance
from lgap_bench.purifier.memory import Memory
from lgap_bench.runtime.choices import require_choice

ForwardNoise = Literal["discrete", "continuous"]


class DiffPure(Purifier):
    """Noise the image to t_star (or not), solve the reverse process back to 0, possibly guided, possibly several times.

    DiffPure adds noise and has no guidance; `coup_unguided` is DiffPure without the forward noise; `coup` adds the
    classifier's confidence; `gdmp` noises, samples with DDPM steps and holds on to the input, over several rounds.

    Args:
        prior: a pixel diffusion model; images are 2 x - 1 in [-1, 1] there, and of its own size if it has one.
        sampler: see `sampler`; decides the steps from t_star to 0.
        t_star: how deep to go, a fraction of the schedule in (0, 1]: 0.1 is 100 of 1,000 steps.
        forward_noise: `discrete` (the release: the product of t* factors 1 - beta), `continuous` (a(t*) of the VP-SDE),
            or null: the reverse process starts from the image itself (COUP).
        guidance: see `guidance`, or null.
        rounds: how often the whole is done; every round draws its own noise.

    The result is clipped to [0, 1] as in the releases; states in between are not.
    """

    def __init__(
        self,
        prior: PixelPrior,
        sampler: Any,
        t_star: float,
        forward_noise: ForwardNoise | None = "discrete",
        guidance: Guidance | None = None,
        rounds: int = 1,
    ) -> None:
        super().__init__()
        require_choice("purifier.forward_noise", forward_noise, ForwardNoise | None)
        self.prior, self.sampler, self.t_star, self.guidance = prior, sampler, t_star, guidance
        self.forward_noise, self.rounds = forward_noise, rounds
        self.steps = sampler.steps(prior, t_star)
        prior.check_sampler(sampler)
        self.memory = Memory(prior.memory)
        self.randomized = self._draws()

    def start(self, x_0: Tensor, noise: Noise, tag: str = "") -> Tensor:
        """x_t*, the state at which the reverse process begins."""
        if self.forward_noise is None:
            return x_0
        if self.forward_noise == "continuous":
            return add_noise(x_0, schedule.alpha(self.t_star), noise, f"{tag}forward")
        a = self.prior.alpha(schedule.start_index(self.t_star, self.prior.train_steps))
        return add_noise(x_0, a, noise, f"{tag}forward")

    def terms(self, x_0: Tensor, size: tuple[int, ...], noise: Noise, tag: str = "") -> list[Term]:
        """The guidance of one purification of x_0, by a classifier that gets images of a (height, width)."""
        if self.guidance is None:
            return []
        return [self.guidance.term(lambda state: self.prior.image(state, size), x_0, noise, tag)]

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x (B, C, H, W) in [0, 1] -> purified images in [0, 1]."""
        x_0 = state = self.prior.encode(x, noise)  # at the prior's own size
        size = tuple(x.shape[-2:])
        kept = self.kept(x_0, noise, self.terms(x_0, size, noise))
        for r in range(self.rounds):
            tag = f"round {r} " if r else ""
            terms = self.terms(x_0, size, noise, tag)
            state = self.solve(self.start(state, noise, tag), x_0, terms, noise, tag, kept[r])
        return self.prior.decode(state, size)

    def path(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Iterator[Tensor]:
        """x_t* and every state after it, as images; of all rounds."""
        x_0 = state = self.prior.encode(x, noise)
        size = tuple(x.shape[-2:])
        for r in range(self.rounds):
            tag = f"round {r} " if r else ""
            terms = self.terms(x_0, size, noise, tag)
            state = self.start(state, noise, tag)
            yield self.prior.decode(state, size)
            for x_t in states(self.prior, state, self.steps, None, self.sampler, noise, terms, tag=tag):
                yield self.prior.decode(x_t, size)
                state = x_t

    def solve(
        self, x_t: Tensor, x_0: Tensor, terms: list[Term], noise: Noise, tag: str, kept: int | None = None
    ) -> Tensor:
        """One reverse process, from x_t* to the end; x_0 is what the terms look at; `kept` as `reverse` takes it."""
        return reverse(self.prior, x_t, self.steps, None, self.sampler, noise, terms, kept, tag, captured=[x_0])

    def kept(self, x_0: Tensor, noise: Noise, terms: list[Term]) -> list[int]:
        """How many steps of each round, the last ones, keep their graph for the gradient."""
        take = transition(self.prior, None, self.sampler, noise, terms)
        (kept,) = self.memory.plan(x_0, [(lambda z: take(z, self.steps[0]), self.rounds * len(self.steps))], self)
        return [max(0, min(len(self.steps), kept - r * len(self.steps))) for r in reversed(range(self.rounds))]

    def resampled(self, sampler: Any) -> DiffPure:
        """The same purifier with another sampler, sharing its networks."""
        self.prior.check_sampler(sampler)
        other = copy.copy(self)  # shallow: the networks are shared, not held twice
        other.memory = self.memory.unmeasured()  # its steps may hold another amount
        other.sampler, other.steps = sampler, sampler.steps(self.prior, self.t_star)
        other.randomized = other._draws()
        return other

    def _draws(self) -> bool:
        return (
            self.forward_noise is not None or self.sampler.draws or (self.guidance is not None and self.guidance.draws)
        )
