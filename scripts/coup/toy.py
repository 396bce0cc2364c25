"""COUP's toy (Zhang et al. 2024, sections 4.3 and 5.3.2, figure 3b, propositions 1 and 2): purification of one number.

The data are an even mixture of N(-mean, std^2), label -1, and N(+mean, std^2), label +1, under the VP-SDE with
beta(t) of `purifier.schedule`, so that the score of the noised mixture is known exactly. A number is purified by Euler's method on
the guided reverse SDE,

    x  <-  x + h beta (x / 2 + score(x, t) + weight * guidance(x)) + sqrt(h beta) n,      n ~ N(0, 1),

from t_star down to 0, by default without forward noise, as COUP does. The guidance is d/dx log max_k p(k | x) of a
classifier of *clean* data, whose densities may be noisy. Everything is float64 on the CPU and every draw comes from the
generator that is handed in.

**What is ours.** The numbers of the experiment did not survive in the text at hand (means, variances, start, step, time,
weights, noise levels, runs), nor did the formula of the noisy classifier: `MEAN` to `RUNS` below, and how the noise enters
(`Classifier`), are ours. So is whether a flip means "at any time" (section 4.3 in words, and its proof) or "at the end":
both are measured.

**Proposition 2, derived again** (its formulas are lost as well). With u = score + weight * guidance, gamma(t) half the
integral of beta from 0 to t, and linear drift solved by variation of constants, the purified x_0 of the input x is

    x_0 = e^g x + sqrt(e^2g - 1) n + integral_0^t* e^gamma(t) beta(t) u(t) dt,      g = gamma(t*), n ~ N(0, I),

and if |u| <= max_score + weight * max_guidance =: C along the path, then with probability >= 1 - delta

    |x_0 - x| <= (e^g - 1) |x| + sqrt(e^2g - 1) r + 2 (e^g - 1) C,    r^2 = d + 2 sqrt(d log 1/delta) + 2 log 1/delta,

r being the tail bound of a Gaussian's norm that DiffPure's theorem 3.2 (Nie et al. 2022) uses. This is `form="strict"`.
The paper's proof, as far as its words tell and as in DiffPure, splits this drift off *before* it solves the linear part, so
the drift loses its weight e^gamma and becomes 2 g C, which is smaller: `form="published"`, a reconstruction (its constants
C_s and C_p are taken as twice ours, as in DiffPure). What was split off is amplified afterwards all the same: a constant
drift exceeds the published form (tests/test_toy.py).

With forward noise the input is first shrunk by e^-g, which cancels the first term, and the two noises add in variance: the
noise term grows by sqrt(2), not by 2. The paper says that a term doubles: `form="published"` doubles the noise term and
leaves the rest as it is. In the strict form forward noise raises the bound only while (sqrt(2) - 1) r > sqrt(tanh(g / 2)) |x|.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lgap_bench.prior.schedule import alpha, beta

# All ours: chosen so that the unguided label is lost in a fifth of the runs and every effect of the text can be seen.
MEAN, STD = 1.0, 0.5
START, T_STAR, DT = 0.3, 0.1, 0.001  # t_star and dt are those of the paper's CIFAR-10 experiments (linf)
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
LEVELS = {  # of noise: additive beside a density that peaks at 0.8, multiplicative in logits
    "additive": (0.0, 0.1, 0.3, 1.0),
    "multiplicative": (0.0, 0.3, 1.0, 3.0),
}
RUNS = 20_000
FLOOR = 1e-2  # noisy densities are cut off here, or they would turn negative and gradients would blow up at 0


def gamma(t: float) -> float:
    """Half the integral of beta from 0 to t: signal is scaled by e^-gamma = sqrt(a), the noise's variance is 1 - a."""
    return -0.5 * math.log(alpha(t))


@dataclass(frozen=True)
class Mixture:
    """The even mixture of N(-mean, std^2) and N(+mean, std^2), and its marginals under the VP-SDE."""

    mean: float = MEAN
    std: float = STD

    def moments(self, t: float) -> tuple[float, float]:
        """Mean of the class +1 and variance of either class at time t."""
        signal = math.sqrt(alpha(t))
        return signal * self.mean, signal**2 * self.std**2 + 1 - signal**2

    def densities(self, x: Tensor, t: float = 0.0) -> Tensor:
        """The two classes' densities at x, (2, *x.shape), class -1 first."""
        mean, variance = self.moments(t)
        distance = torch.stack([x + mean, x - mean])
        return torch.exp(-(distance**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    def score(self, x: Tensor, t: float) -> Tensor:
        """d/dx log p_t(x), exact."""
        mean, variance = self.moments(t)
        return (mean * torch.tanh(mean * x / variance) - x) / variance

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of the clean mixture."""
        side = 2.0 * torch.randint(2, (n,), generator=generator) - 1
        return side * self.mean + self.std * torch.randn(n, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Classifier:
    """The Bayes classifier of the clean mixture with noise on its densities f_y; what stands for a classifier's errors.

    kind: `additive`, f_y + level * e_y cut off at FLOOR (our reading of "f_y is the density, e the noise"), or
    `multiplicative`, f_y * exp(level * e_y); e_y ~ N(0, 1) apart for each class and constant in x.
    fresh: draw e_y anew at every step, or once per run (the classifier is wrong in one way all along, as under an attack).
    """

    mixture: Mixture
    level: float = 0.0
    kind: str = "additive"
    fresh: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("additive", "multiplicative"):
            raise ValueError(f"kind={self.kind} is neither additive nor multiplicative")
        if self.level < 0:
            raise ValueError(f"level={self.level} is negative: the noise level is >= 0, 0 for the exact classifier")

    def noise(self, runs: int, generator: torch.Generator) -> Tensor:
        """e_y of both classes, (2, runs); drawn at level 0 too, so that all levels walk on the same Brownian motion."""
        return torch.randn(2, runs, generator=generator, dtype=torch.float64)

    def guidance(self, x: Tensor, e: Tensor) -> Tensor:
        """d/dx log max_k p(k | x), x (..., runs), e (2, runs); at a tie of the two classes it is 0."""
        e = self.level * e.reshape(2, *([1] * (x.dim() - 1)), -1)
        mean, variance = self.mixture.mean, self.mixture.std**2
        if self.kind == "multiplicative" or self.level == 0:
            # In logits: far from both classes their densities underflow, the ratio does not.
            logit = 2 * mean * x / variance + e[1] - e[0]
            return 2 * mean / variance * logit.sign() * torch.sigmoid(-logit.abs())
        clean = self.mixture.densities(x)
        noisy = clean + e
        slope = torch.where(noisy > FLOOR, clean * torch.stack([-x - mean, mean - x]) / variance, 0.0)
        noisy = noisy.clamp(min=FLOOR)
        of_max = torch.where(noisy[1] > noisy[0], slope[1] / noisy[1], slope[0] / noisy[0])
        return torch.where(noisy[1] == noisy[0], 0.0, of_max - slope.sum(0) / noisy.sum(0))


@dataclass(frozen=True)
class Paths:
    """Purified runs, (weights, runs) each: the end, whether the label of the input was lost at any time, and at the end.

    max_score, max_guidance: the largest absolute values met on any path, which is what `bound` asks for.
    """

    end: Tensor
    flipped_ever: Tensor
    flipped_at_end: Tensor
    max_score: float
    max_guidance: float


def times(t_star: float, dt: float) -> list[float]:
    """Where Euler's steps start: t_star, t_star - dt, ..., dt. Raises ValueError unless dt divides t_star."""
    steps = round(t_star / dt)
    if not 0 < t_star <= 1 or steps < 1 or abs(steps * dt - t_star) > 1e-9:
        raise ValueError(f"t_star={t_star}, dt={dt}: t_star is in (0, 1] and a whole number of steps dt")
    return [k * dt for k in range(steps, 0, -1)]


def purify(
    start: Tensor,
    score: Callable[[Tensor, float], Tensor],
    generator: torch.Generator,
    *,
    weights: Sequence[float] = (0.0,),
    classifier: Classifier | None = None,
    t_star: float = T_STAR,
    dt: float = DT,
    forward_noise: bool = False,
) -> Paths:
    """Guided reverse SDE from start (runs,), float64 and not 0; all weights walk on the same noise, run by run.

    A label is the sign of x, which is the Bayes label at every t; x = 0 counts as lost (it has no sign). With forward
    noise the first state is sqrt(a) start + sqrt(1 - a) n, and may have lost the label already.
    """
    runs, guided = len(start), torch.tensor(weights, dtype=torch.float64)[:, None]
    if classifier is None and any(weights):
        raise ValueError(f"weights={tuple(weights)} without a classifier: hand one in, or use the weight 0")
    x = start.expand(len(weights), -1).clone()
    if forward_noise:
        signal = math.sqrt(alpha(t_star))
        x = signal * x + math.sqrt(1 - signal**2) * torch.randn(runs, generator=generator, dtype=torch.float64)
    e = classifier.noise(runs, generator) if classifier is not None else None
    ever, most, steer = x * start <= 0, 0.0, 0.0
    for t in times(t_star, dt):
        n = torch.randn(runs, generator=generator, dtype=torch.float64)
        u = score(x, t)
        most = max(most, float(u.abs().max()))
        if classifier is not None and e is not None:
            drawn = classifier.noise(runs, generator)  # even if unused: the Brownian motion stays the same
            e = drawn if classifier.fresh else e
            g = classifier.guidance(x, e)
            steer = max(steer, float(g.abs().max()))
            u = u + guided * g
        rate = dt * beta(t)
        x = x + rate * (x / 2 + u) + math.sqrt(rate) * n
        ever |= x * start <= 0
    return Paths(x, ever, x * start <= 0, most, steer)


def least_slope(mixture: Mixture, weight: float, t_star: float = T_STAR, dt: float = DT) -> float:
    """Proposition 1's second condition on x > 0: the least slope of x -> x + h F(x, t), which has to be positive.

    F is the guided drift with the exact classifier; slopes of chords of a grid on (0, 5 (mean + std)].
    """
    x = torch.linspace(0, 5 * (mixture.mean + mixture.std), 2001, dtype=torch.float64)[1:]
    g = weight * Classifier(mixture).guidance(x, torch.zeros(2, len(x), dtype=torch.float64))
    rates = [(t, dt * beta(t)) for t in times(t_star, dt)]
    return min(float((x + r * (x / 2 + mixture.score(x, t) + g)).diff().min() / (x[1] - x[0])) for t, r in rates)


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval of a proportion, 95 % by default; both ends in [0, 1]."""
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"hits={hits} of n={n}: hits is between 0 and n, n at least 1")
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def radius(dimension: int, delta: float) -> float:
    """r with P(|n| > r) <= delta for n ~ N(0, I) in that dimension (Laurent and Massart 2000, as in DiffPure)."""
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta} is not in (0, 1): the bound holds with probability 1 - delta")
    log = math.log(1 / delta)
    return math.sqrt(dimension + 2 * math.sqrt(dimension * log) + 2 * log)


def propagation(t_star: float, dt: float | None = None) -> tuple[float, float, float]:
    """What the linear part makes of the start (factor), the Brownian motion (variance) and a constant |u| <= 1 (length).

    dt: exact for Euler's method with that step; None: the SDE, (e^g, e^2g - 1, 2 (e^g - 1)).
    """
    if dt is None:
        grown = math.exp(gamma(t_star))
        return grown, grown**2 - 1, 2 * (grown - 1)
    grown, variance, length = 1.0, 0.0, 0.0
    for t in times(t_star, dt):
        rate = dt * beta(t)
        keep = 1 + rate / 2
        grown, variance, length = grown * keep, variance * keep**2 + rate, length * keep + rate
    return grown, variance, length


def bound(
    t_star: float,
    *,
    dimension: int,
    norm: float,
    max_score: float,
    max_guidance: float = 0.0,
    weight: float = 0.0,
    delta: float = 0.05,
    forward_noise: bool = False,
    form: str = "strict",
    dt: float | None = None,
) -> float:
    """Proposition 2: what |purified - input| (l2, in the prior's space) exceeds with probability at most delta.

    dimension and norm (l2) of the input; max_score and max_guidance: the largest l2 norms of the score and of the
    unweighted guidance along the path. form `strict` or `published`, and the derivation: at the top of this file. dt: for
    Euler's method with that step (strict only); None: the SDE.
    """
    if form not in ("strict", "published"):
        raise ValueError(f"form={form} is neither strict nor published")
    if form == "published" and dt is not None:
        raise ValueError(f"form=published is of the SDE, not of Euler's method: leave out dt={dt}")
    pull, r = max_score + weight * max_guidance, radius(dimension, delta)
    factor, variance, length = propagation(t_star, dt)
    if form == "published":
        doubled = 2 if forward_noise else 1
        return (factor - 1) * norm + doubled * math.sqrt(variance) * r + 2 * gamma(t_star) * pull
    if forward_noise:
        signal = math.sqrt(alpha(t_star))
        shrunk = factor * signal  # 1 for the SDE
        return abs(shrunk - 1) * norm + math.sqrt(variance + factor**2 * (1 - signal**2)) * r + length * pull
    return (factor - 1) * norm + math.sqrt(variance) * r + length * pull
