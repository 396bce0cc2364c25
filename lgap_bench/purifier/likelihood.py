"""Likelihood maximisation (Chen et al. 2023, section 3.3), with COUP's confidence guidance where one is given."""

from __future__ import annotations

from torch import Tensor

from lgap_bench.noise import Noise
from lgap_bench.prior import schedule
from lgap_bench.prior.pixel import PixelPrior
from lgap_bench.prior.schedule import Step
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.guidance import Guidance, ascent
from lgap_bench.purifier.memory import Memory, recomputed


class LikelihoodMax(Purifier):
    """Gradient ascent on the diffusion model's lower bound of log p(x), inside a small ball around the input.

    Each of N steps draws t and n, and climbs  d = grad_x [ -||n - e(x_t, t)||^2 / 2 ] + guidance(x),  x_t the noised x,
    by `step_size` times the running sum of d / ||d|| (momentum), then projects back to |x - input| <= eps.

    Symbols: e the prior's noise; eta of the paper is `eps`.

    Args:
        prior: a pixel diffusion model.
        steps: N, gradient steps (5, Chen et al.).
        step_size: l2 length of a step in [-1, 1] units; ours, the text gives none that fits a unit direction.
        eps: linf radius around the input in [0, 1] pixel units, e.g. 8/255; null for none.
        t_min, t_max: range of t, fractions of the schedule; every sample draws its own at every step.
        momentum: of the running direction.
        guidance: added to the ascent direction, evaluated at x itself (COUP, section 5.2.1), or null.

    Deviations: one common unit direction for likelihood and guidance; the authors' code has several variants (Adam, sign steps,
    norms), of which the sign steps have no usable exact gradient.
    """

    randomized = True

    def __init__(
        self,
        prior: PixelPrior,
        steps: int = 5,
        step_size: float = 0.5,
        eps: float | str | None = "8/255",
        t_min: float = 0.1,
        t_max: float = 0.3,
        momentum: float = 1.0,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__()
        from lgap_bench.cell.values import fraction

        if not 0 < t_min <= t_max <= 1:
            raise ValueError(
                f"purifier.t_min={t_min}, t_max={t_max}: use 0 < t_min <= t_max <= 1, fractions of the schedule"
            )
        self.prior, self.steps, self.step_size, self.momentum = prior, steps, step_size, momentum
        self.t_min, self.t_max, self.guidance = t_min, t_max, guidance
        self.eps = None if eps is None else fraction(eps, "purifier.eps")
        self.memory = Memory(prior.memory)

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x (B, C, H, W) in [0, 1] -> images in [0, 1] of higher likelihood; differentiable, with second derivatives."""
        x_0 = state = self.prior.encode(x, noise)
        size = tuple(x.shape[-2:])
        as_image = lambda state: self.prior.image(state, size)  # noqa: E731
        terms = [] if self.guidance is None else [self.guidance.term(as_image, x_0, noise)]
        speed = x_0.new_zeros(x_0.shape)

        def direction(z: Tensor, k: int) -> Tensor:
            d = ascent(lambda point: self.lower_bound(point, noise, k), z, detach=False)
            here = Step(k, 0, 1.0, 1.0, 0.0)  # the guidance sees x without noise
            for term in terms:
                d = d + term(z, z.new_zeros(z.shape), here)
            return d / d.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)

        (kept,) = self.memory.plan(x_0, [(lambda z: direction(z, 0), self.steps)], self)
        for k in range(self.steps):
            again = k < self.steps - kept
            unit = recomputed(direction, state, k, captured=[x_0]) if again else direction(state, k)
            speed = self.momentum * speed + unit
            state = state + self.step_size * speed
            if self.eps is not None:
                state = x_0 + (state - x_0).clamp(-2 * self.eps, 2 * self.eps)
        return self.prior.decode(state, size)

    def lower_bound(self, x: Tensor, noise: Noise, k: int) -> Tensor:
        """-||n - e||^2 / 2 at one random t per sample, (B,): the bound's term without its weight (Ho et al. 2020, eq. 14)."""
        u = noise.uniform(x.flatten(1)[:, :1], f"time {k}").view(-1, 1, 1, 1)
        t = self.t_min + (self.t_max - self.t_min) * u
        a = (-0.5 * (schedule.BETA_MAX - schedule.BETA_MIN) * t**2 - schedule.BETA_MIN * t).exp()
        n = noise.normal(x, f"likelihood {k}")
        e, _ = self.prior.predict(a.sqrt() * x + (1 - a).sqrt() * n, self.prior.label(t.flatten()), None)
        return -0.5 * (n - e).square().flatten(1).sum(1)
