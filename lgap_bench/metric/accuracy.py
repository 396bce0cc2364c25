"""Accuracies of randomized defenses: mean over draws, any-of-K, majority-of-K, with a nested bootstrap interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Correct = NDArray[np.bool_]  # (seeds, images, draws)
Among = NDArray[np.bool_]  # (seeds, images)


@dataclass(frozen=True)
class Accuracy:
    """In percent; `low` and `high` are the 95 % interval of `mean`."""

    mean: float
    low: float
    high: float
    any_of_k: float
    majority_of_k: float


def accuracy(correct: Correct, resamples: int = 2000, seed: int = 0, among: Among | None = None) -> Accuracy:
    """Accuracy of the same images over seeds and draws.

    Args:
        correct: bool (seeds, images, draws); one seed or one draw is allowed.
        resamples, seed: of the bootstrap; it has its own generator.
        among: bool (seeds, images), at least one true: only these count, where a group of images differs from seed to
            seed (those whose caption lost its label). Null: all.

    `any_of_k`: right in all K draws (any failure counts); `majority_of_k`: right in more than half. Both per seed, then
    averaged. The interval resamples images (shared by all seeds: weights and images are the same), then seeds, then
    draws within an image, since draws of one image are not independent.
    """
    if among is not None:
        involved = among.any(axis=0)
        correct, among = correct[:, involved], among[:, involved]
    rate = correct.mean(axis=2)
    low, high = _interval(rate, correct.shape[2], resamples, np.random.default_rng(seed), among)
    chosen = np.ones(rate.shape, bool) if among is None else among
    everything = 100 * float(rate.mean() if among is None else rate[chosen].mean())
    return Accuracy(
        mean=everything,
        low=min(100 * low, everything),
        high=max(100 * high, everything),
        any_of_k=100 * float(np.all(correct, axis=2)[chosen].mean()),
        majority_of_k=100 * float((rate > 0.5)[chosen].mean()),
    )


def _interval(
    rate: NDArray[np.float64], draws: int, resamples: int, random: np.random.Generator, among: Among | None
) -> tuple[float, float]:
    """Percentile interval of the nested bootstrap of per-image success rates (seeds, images)."""
    seeds, images = rate.shape
    held = rate if among is None else rate[among]
    if held.min() == held.max() and held.max() in (0.0, 1.0):
        # No resample can differ, which would read as certainty; Clopper-Pearson's bound over the images is honest.
        bound = 1 - math.exp(math.log(0.025) / images)
        return (1 - bound, 1.0) if held.max() == 1 else (0.0, bound)
    means = np.empty(resamples)
    for index in range(resamples):
        chosen = random.integers(images, size=images)
        again = random.integers(seeds, size=seeds)
        pick = np.ix_(again, chosen)
        picked = rate[pick] if among is None else rate[pick][among[pick]]
        if picked.size == 0:
            means[index] = np.nan  # a resample without any of the group says nothing
        else:
            means[index] = random.binomial(draws, picked).mean() / draws if draws > 1 else picked.mean()
    low, high = np.nanquantile(means, [0.025, 0.975])
    return float(low), float(high)
