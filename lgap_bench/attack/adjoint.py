"""The view `adjoint`: gradients by the stochastic adjoint (Li et al. 2020), as DiffPure and COUP evaluate themselves.

The adjoint method forgets the trajectory and integrates the state backwards beside its gradient, on the same Brownian
path. At the papers' step lengths the state that it meets on the way back is not the one it came through, and its first step
evaluates the score at t = 1e-5, where 1 / sqrt(1 - a) is near 1,000: the gradient is biased, which the view's name says.
torchsde's solvers are used as they are; what is ours is the equation they are given, which is the purifier's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.attack.stand_in import StandIn
from lgap_bench.attack.view import MAX_ROWS
from lgap_bench.defense import Defense
from lgap_bench.noise import Noise
from lgap_bench.prior import schedule
from lgap_bench.prior.schedule import Step
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.purifier.diffusion import Prior, Term, total
from lgap_bench.purifier.sampler import ReverseSDE, guided

NEAR = 1e-9  # times closer than this are the same: grid points met by another order of additions


class Adjoint(StandIn):
    """Purification by torchsde's `sdeint_adjoint` on the purifier's own noise: the same images, a biased gradient.

    Raises ValueError unless the purifier solves the reverse SDE with noise, or if torchsde is missing.
    """

    def __init__(self, defense: Defense, max_rows: int = MAX_ROWS) -> None:
        super().__init__(defense, by_adjoint(defense.purifier), max_rows)


def by_adjoint(purifier: Purifier) -> DiffPure:
    """The same purifier, differentiated by the adjoint method; it shares its networks."""
    sampler = getattr(purifier, "sampler", None)
    if not (isinstance(purifier, DiffPure) and isinstance(sampler, ReverseSDE) and sampler.noise):
        raise ValueError(
            f"view=adjoint needs a purifier that solves the reverse SDE with noise, and {type(purifier).__name__} does not: use purifier=diffpure or coup with purifier/sampler=reverse_sde"
        )
    _solver()
    p = purifier
    return _ByAdjoint(p.prior, sampler, p.t_star, p.forward_noise, p.guidance, p.rounds)


class _ByAdjoint(DiffPure):
    """DiffPure whose reverse process is solved by torchsde."""

    def solve(
        self, x_t: Tensor, x_0: Tensor, terms: list[Term], noise: Noise, tag: str, kept: int | None = None
    ) -> Tensor:
        """The state at t = 1e-5; the method holds no graph, so `kept` says nothing. Guidance that looks at the input x_0 makes it a parameter of the equation."""
        equation = ReverseProcess(self.prior, self.sampler, terms, self.steps, x_t.shape)
        # torchsde adds dt to times in their own precision: float64 meets the purifier's grid whatever the images are in.
        times = torch.tensor([1 - self.steps[0].t, 1 - schedule.END], dtype=torch.float64)
        solution = _solver()(
            equation,
            x_t.flatten(1),
            times,
            bm=KeyedPath(self.steps, self.sampler, x_t, noise, tag),
            method="euler",
            adjoint_method="euler",  # torchsde's default, Milstein, is Euler here: the noise depends on time alone
            dt=self.sampler.dt,
            adjoint_params=(x_0,) if self.guidance is not None and x_0.requires_grad else (),
        )
        return solution[-1].view(x_t.shape)


class ReverseProcess(nn.Module):
    """dx = drift ds + sqrt(beta) dW in reversed time s = 1 - t, with the purifier's own network, guidance and schedule.

    Args:
        prior, sampler, terms: the purifier's; weights are frozen and no parameters of this module.
        steps: the purifier's, whose indices name the noise of guidance that draws.
        shape: of the images, which torchsde sees as rows.
    """

    noise_type, sde_type = "diagonal", "ito"

    def __init__(
        self, prior: Prior, sampler: ReverseSDE, terms: list[Term], steps: list[Step], shape: torch.Size
    ) -> None:
        super().__init__()
        self.terms, self.shape, self.starts = terms, shape, [1 - step.t for step in steps]
        self.parts = (prior, sampler)  # a tuple, so that torch does not count the network's weights as parameters

    def f(self, s: Tensor, y: Tensor) -> Tensor:
        """The drift at rows y (B, C*H*W)."""
        prior, sampler = self.parts
        t, x_t = 1 - float(s), y.view(self.shape)
        label: float = prior.label(t)  # type: ignore[attr-defined]
        step = Step(_cell(self.starts, float(s)), label, schedule.alpha(t), schedule.alpha(t), t)
        e, _ = prior.predict(x_t, step.label, None)
        e = guided(e, total(self.terms, x_t, e, step), step)
        return sampler.drift(x_t, e, step).flatten(1)

    def g(self, s: Tensor, y: Tensor) -> Tensor:
        """sqrt(beta), the same for every pixel."""
        return torch.full_like(y, schedule.beta(1 - float(s)) ** 0.5)


class KeyedPath:
    """The Brownian path W whose increments over the purifier's steps are the purifier's own noise, times sqrt(h).

    Inside a step, where only the way back looks, W is a Brownian bridge keyed by the time it is asked at. So W is a
    function of time, drawn anew whenever it is asked: nothing is stored. (Two points inside the same step are drawn
    independently given its ends; the solver asks for one.) A last step without noise has none inside either.
    """

    levy_area_approximation = "none"

    def __init__(self, steps: list[Step], sampler: ReverseSDE, like: Tensor, noise: Noise, tag: str) -> None:
        self.starts = [1 - step.t for step in steps]
        self.lengths = [step.h for step in steps]
        self.silent = None if sampler.last_noise else len(steps) - 1
        self.like, self.noise, self.tag = like.detach(), noise, tag
        self.shape, self.dtype, self.device = like.flatten(1).shape, like.dtype, like.device

    def __call__(self, ta: Any, tb: Any, return_U: bool = False, return_A: bool = False) -> Tensor:
        """W(tb) - W(ta), (B, C*H*W)."""
        (first, start), (last, end) = self._place(float(ta)), self._place(float(tb))
        total = self._inside(last, end) - self._inside(first, start)
        for k in range(first, last):
            total = total + self._normal(k, "step", self.lengths[k])
        return total.flatten(1)

    def _place(self, s: float) -> tuple[int, float]:
        """The step that contains the time s, and how far into it s lies."""
        k = _cell(self.starts, s)
        return k, s - self.starts[k]

    def _inside(self, k: int, after: float) -> Tensor:
        """W a while after the start of step k, less W at its start."""
        h = self.lengths[k]
        if after <= NEAR:
            return torch.zeros_like(self.like)
        if after >= h - NEAR:
            return self._normal(k, "step", h)
        share = after / h
        return share * self._normal(k, "step", h) + self._normal(k, f"bridge {share:.6f}", share * (1 - share) * h)

    def _normal(self, k: int, name: str, variance: float) -> Tensor:
        """Noise of step k; under the name `step` the purifier's own."""
        if k == self.silent:
            return torch.zeros_like(self.like)
        tag = f"{self.tag}step {k}" if name == "step" else f"{self.tag}{name} of step {k}"
        return variance**0.5 * self.noise.normal(self.like, tag)


def _cell(starts: list[float], s: float) -> int:
    """The last step that has begun at time s."""
    return max((k for k, start in enumerate(starts) if start <= s + NEAR), default=0)


def _solver() -> Any:
    """torchsde's sdeint_adjoint; torchsde is installed with the extra `adjoint` alone."""
    try:
        from torchsde import sdeint_adjoint
    except ImportError:
        raise ValueError("view=adjoint needs torchsde: pip install 'lgap-bench[adjoint]'") from None
    return sdeint_adjoint
