"""Accuracies of randomized defenses: mean over draws, any-of-K, majority-of-K, with an interval over images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lgap_bench.metric.interval import share_interval

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
        resamples, seed: without effect, since the interval is no bootstrap any more; kept for callers that name them.
        among: bool (seeds, images), at least one true: only these count, where a group of images differs from seed to
            seed (those whose caption lost its label). Null: all.

    `any_of_k`: right in all K draws (any failure counts); `majority_of_k`: right in more than half. Both per seed, then
    averaged. The interval is over images (shared by all seeds: weights and images are the same), since draws and seeds of
    one image are not independent: see `metric.interval.share_interval`.
    """
    if among is not None:
        involved = among.any(axis=0)
        correct, among = correct[:, involved], among[:, involved]
    rate = correct.mean(axis=2)
    mean, low, high = share_interval(rate, correct.shape[2], among)
    chosen = np.ones(rate.shape, bool) if among is None else among
    return Accuracy(
        mean=100 * mean,
        low=100 * low,
        high=100 * high,
        any_of_k=100 * float(np.all(correct, axis=2)[chosen].mean()),
        majority_of_k=100 * float((rate > 0.5)[chosen].mean()),
    )
