"""95 % intervals over images: of a share of right draws, and of the difference of two on the same images.

The images are the sampling unit; seeds and draws of one image are not independent. Both intervals are closed forms, so they
are deterministic. `python -m scripts.coverage` simulates how often they hold the truth; docs/trust.md has the table.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]  # (seeds, images)
Among = NDArray[np.bool_]  # (seeds, images)

NORMAL = 1.959964  # the normal distribution's 97.5 % quantile
FEWEST = 4  # degrees of freedom at least: with fewer, Student's quantile answers for nothing that bounded values can do
CHANCE = (
    4  # how many times its mean the square of the seeds' spread must exceed before it counts as more than draws' noise
)


def share_interval(rate: Values, draws: int, among: Among | None = None) -> tuple[float, float, float]:
    """Mean and 95 % interval of the mean success rate over the population of images.

    Args:
        rate: (seeds, images) in [0, 1], the share of right draws.
        draws: how many draws each share is of.
        among: bool (seeds, images): only these pairs count; every image must have one. None: all.

    Wilson's score interval (1927) of n / deff images, as survey statistics do for clustered samples (Kish 1965; Korn and
    Graubard 1998; compared by Dean and Pagano 2015), with Student's quantile; deff is the design effect (`_design_effect`).
    Ours are three things: deff is drawn towards its cautious end where so few draws are right (or wrong) that it cannot be
    told; a spread of the seeds beyond chance adds to it; and the limits nearest 0 and 1, known to be too tight there (Brown,
    Cai and DasGupta 2001), are moved out smoothly.
    """
    among = np.ones(rate.shape, bool) if among is None else among
    counted, times = np.where(among, rate, 0.0), among.sum(axis=0)
    mean = float(counted.sum() / times.sum())
    images = float(times.sum() ** 2 / (times**2).sum())  # Kish's number where images count unequally often
    spread = mean * (1 - mean)
    design = _design_effect(counted.sum(axis=0), times, mean, images)
    seeds = _spread_of_seeds(counted, among) * images / spread if spread > 0 else 0.0
    # Shares more alike than coins would be are luck: they must not narrow the interval to nothing.
    effective = min(images / (design + seeds), 2.0 * draws * float(times.sum()))
    low, high = _wilson(mean, effective, _quantile((design, max(len(times) - 1, FEWEST)), (seeds, len(rate) - 1)))
    low *= _moved_out(mean * effective)
    high = 1 - (1 - high) * _moved_out((1 - mean) * effective)
    return mean, max(min(low, mean), 0.0), min(max(high, mean), 1.0)


def paired_interval(points: Values) -> tuple[float, float, float]:
    """Mean and 95 % interval of a difference of two accuracies on the same images, all in points.

    Args:
        points: (seeds, images) in [-100, 100], the difference of two shares of right draws.

    Bonett and Price (2012) for matched proportions: before the interval of the mean is taken, two images are added, one that
    differs in each direction, so that a difference of two zeros has a width. Ours is their size: 100 points where images
    differ wholly or not at all or too little to tell, less where many differ by a little. With Student's quantile, and the
    spread of the seeds beyond chance.
    """
    values = points / 100
    each = values.mean(axis=0)
    mean, images, moved = float(each.mean()), len(each), float(np.abs(each).sum())
    unknown = math.exp(-moved)
    size = unknown + (1 - unknown) * float((each**2).sum()) / moved if moved > 0 else 1.0
    held = np.append(each, [size, -size])
    own = float(held.var()) / len(held)
    seeds = _spread_of_seeds(values, np.ones(values.shape, bool))
    half = _quantile((own, max(images - 1, FEWEST)), (seeds, len(points) - 1)) * math.sqrt(own + seeds)
    low, high = float(held.mean()) - half, float(held.mean()) + half
    return 100 * mean, 100 * max(min(low, mean), -1.0), 100 * min(max(high, mean), 1.0)


def _design_effect(right: NDArray[np.float64], times: NDArray[np.int64], mean: float, images: float) -> float:
    """Variance of the images' means over p (1 - p), in (0, 1].

    1 where an image is all right or all wrong, 1 / (seeds * draws) where every draw is a coin of its own. One right draw of
    640 does not tell which: the estimate is mixed with 1, whose weight falls as the images on the rarer side grow in number.
    """
    most = mean * (1 - mean) * float((times**2).sum())
    if most == 0 or len(times) == 1:
        return 1.0
    unknown = math.exp(-images * mean * (1 - mean))
    own = float(((right - mean * times) ** 2).sum()) * len(times) / (len(times) - 1)
    return unknown + (1 - unknown) * min(own / most, 1.0)


def _spread_of_seeds(values: Values, among: Among) -> float:
    """Variance of the mean that comes from seeds that shift all images at once; 0 where new draws alone explain it.

    Only the excess over `CHANCE` counts: what two or three seeds differ by chance would widen every interval.
    """
    seeds, times = len(values), among.sum(axis=0)
    if seeds == 1:
        return 0.0
    left = np.where(among, values - values.sum(axis=0, where=among) / times, 0.0)  # without what images differ by
    excess = float((left.sum(axis=1) ** 2).sum() - CHANCE * (left**2).sum())
    return max(excess, 0.0) * seeds / (seeds - 1) / float(times.sum()) ** 2


def _wilson(mean: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's limits of a proportion of n trials."""
    c = quantile**2 / n
    half = math.sqrt(c * mean * (1 - mean) + c**2 / 4)
    return (mean + c / 2 - half) / (1 + c), (mean + c / 2 + half) / (1 + c)


def _moved_out(count: float) -> float:
    """Factor on the limit between an end of [0, 1] and a mean that is `count` images from it: 1/3 of one, 0.93 of three.

    With it the interval of a binomial share covers at least 93 % of the time whatever the truth; without, 85 % near the ends.
    """
    return count**3 / (count**3 + 2)


def _quantile(*parts: tuple[float, int]) -> float:
    """Student's 97.5 % quantile of a sum of variances, each with its degrees of freedom (Welch and Satterthwaite).

    By the expansion of Abramowitz and Stegun (26.7.5): within 1 % from 2 degrees of freedom on.
    """
    held = [(variance, freedom) for variance, freedom in parts if variance > 0]
    df = sum(variance for variance, _ in held) ** 2 / sum(variance**2 / freedom for variance, freedom in held)
    z = NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / df**power for power, term in enumerate(terms, 1))
