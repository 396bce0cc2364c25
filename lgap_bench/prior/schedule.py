"""What a reverse step has to know: its label for the network, signal levels, and the VP-SDE's rate and step length."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lgap_bench.prior.timesteps import timesteps

# Song et al. 2021b; `DDPMScheduler`'s 1e-4 ... 0.02 over 1,000 steps is its discretisation.
BETA_MIN, BETA_MAX = 0.1, 20.0
END = 1e-5  # where the continuous time stops: the score is singular at 0 (DiffPure)


@dataclass(frozen=True)
class Step:
    """One reverse step from time t to s < t.

    Attributes:
        index: its place in the trajectory, from 0: the name of its noise.
        label: what the network is called with.
        a_t, a_s: cumulative signal at its start and end, x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n.
        t: its start as a fraction of the schedule, in (0, 1].
        h: its length in continuous time; 0 for discrete samplers.
        last: whether the trajectory ends with it.
        a_before: cumulative signal at the start of the step before; None for the first and for continuous samplers.
    """

    index: int
    label: float
    a_t: float
    a_s: float
    t: float
    h: float = 0.0
    last: bool = False
    a_before: float | None = None


def beta(t: float) -> float:
    """beta(t) = 0.1 + 19.9 t of the variance-preserving SDE, t in [0, 1] (Song et al. 2021b, eq. 32)."""
    return BETA_MIN + (BETA_MAX - BETA_MIN) * t


def alpha(t: float) -> float:
    """a(t) = exp(-int_0^t beta) = exp(-9.95 t^2 - 0.1 t), t in [0, 1]; the squared std of x_t given x_0 is 1 - a(t)."""
    return math.exp(-0.5 * (BETA_MAX - BETA_MIN) * t**2 - BETA_MIN * t)


def time_grid(t_star: float, dt: float) -> list[tuple[float, float]]:
    """(t, h) of every Euler step from t_star down to 1e-5 in steps of dt; the last one is shorter.

    Times are one minus an accumulated reversed time, as a solver of the reversed SDE meets them: networks whose label
    is a rounded time see the same labels. Raises ValueError unless dt divides t_star and is longer than 1e-5.
    """
    if not 0 < t_star <= 1:
        raise ValueError(bad_depth(t_star))
    if not END < dt <= t_star:
        raise ValueError(
            f"purifier.sampler.dt={dt} is not in ({END:g}, t_star={t_star}]: use "
            + (f"a step that divides t_star, e.g. {t_star / 10:.12g}" if t_star > 10 * END else "a larger t_star")
        )
    count = round(t_star / dt)
    if abs(count * dt - t_star) > 1e-9:  # 0.1 / 0.001 is not 100 in floats
        raise ValueError(
            f"purifier.sampler.dt={dt} does not divide purifier.t_star={t_star}: use e.g. {t_star / max(count, 1):.12g}"
        )
    grid, s = [], 1 - t_star
    for k in range(count):
        after = 1 - END if k == count - 1 else s + dt
        grid.append((1 - s, after - s))
        s = after
    return grid


def bad_depth(t_star: object) -> str:
    """The one line for a depth that is no fraction, e.g. 100 steps written as 100."""
    return (
        f"purifier.t_star={t_star} is not in (0, 1]: it is a fraction of the schedule, write 0.1 for 100 steps of 1000"
    )


def check_variance(variance: str | None, learned: bool) -> None:
    """Raise ValueError if a sampler's variance and a network's output do not go together; None for samplers without."""
    if learned and variance in ("fixed_small", "fixed_large"):
        raise ValueError(
            f"purifier.sampler.variance={variance}, and the prior predicts its variance: use learned_range, or a sampler that leaves it out (reverse_sde, ode, ddim)"
        )
    if not learned and variance == "learned_range":
        raise ValueError(
            "purifier.sampler.variance=learned_range, and the prior predicts no variance: use fixed_small or fixed_large"
        )


def start_index(t_star: float, train_steps: int) -> int:
    """The discrete timestep of noise level t_star: 0.1 of 1,000 steps is index 99, a product of 100 factors 1 - beta."""
    if not 0 < t_star <= 1:
        raise ValueError(bad_depth(t_star))
    index = round(t_star * train_steps) - 1
    if index < 0:
        raise ValueError(
            f"purifier.t_star={t_star} is less than one of the model's {train_steps} steps: use {1 / train_steps:g} or more"
        )
    return index


def discrete_times(t_star: float, calls: int | None, train_steps: int) -> list[int]:
    """The timesteps of a discrete sampler: all from `start_index` down to 0, or `calls` evenly spaced ones of them."""
    first = start_index(t_star, train_steps)
    if calls is None or calls == first + 1:
        return list(range(first, -1, -1))
    if not 1 <= calls <= first:
        raise ValueError(
            f"purifier.sampler.calls={calls} is not in [1, {first + 1}]: purifier.t_star={t_star} leaves {first + 1} steps, lower calls or use null for every step"
        )
    return timesteps(calls, None, first, "leading", train_steps)
