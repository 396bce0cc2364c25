"""Is a difference of two rows on the same images more than chance? Exact tests, and Holm's correction for several of them.

All p values are two-sided and deterministic: distributions are summed, not sampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST = (
    3e8  # additions of the exact distribution; beyond it there are thousands of images, and the normal one is as good
)


def sign_flip(differences: NDArray[np.int64]) -> float:
    """p of the sign-flip permutation test: every image's difference might as well have had the other sign.

    Args:
        differences: (images,) whole numbers: right draws of the one row minus those of the other, of equally many draws.

    The distribution of the sum over all 2^images signs, by convolution. Images without a difference do not count.
    """
    moved = np.abs(differences[differences != 0]).astype(np.int64)
    total, reach = int(abs(differences.sum())), int(moved.sum())
    if total == 0:
        return 1.0
    if len(moved) * (2.0 * reach + 1) > MOST:
        # The half unit of a sum that moves in steps of two: the usual correction for continuity.
        return math.erfc((total - 1) / math.sqrt(2 * float((moved.astype(float) ** 2).sum())))
    chance = np.zeros(2 * reach + 1)
    chance[reach] = 1.0
    for size in moved:
        shifted = np.zeros_like(chance)
        shifted[size:] += chance[:-size] / 2
        shifted[:-size] += chance[size:] / 2
        chance = shifted
    return min(1.0, 2 * float(chance[reach + total :].sum()))


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int, float]:
    """McNemar's exact test on answers of two rows, (images,): right in the first alone, in the second alone, and p."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(discordant, count) for count in range(fewer + 1))
    return only_first, only_second, min(1.0, float(2 * tail / 2**discordant))


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for how many there are (Holm 1979): below 0.05 with at most 5 % chance of any false one."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    corrected, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = highest
    return corrected
