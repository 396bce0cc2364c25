"""How often the 95 % intervals hold the truth: data sets are simulated, intervals are taken, a Markdown table is printed.

    python -m scripts.coverage [--before] [--quick]

`--before`: each cell is "before → now", before being the nested percentile bootstrap of versions up to 1.0. `--quick`: a
tenth of the data sets. Cells outside 93 to 97.5 % are bold where below, marked + where above.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lgap_bench.metric.interval import paired_interval, share_interval

Rates = NDArray[np.float64]
Limits = Callable[[Rates, int], tuple[float, float]]  # (seeds, images) and draws -> low, high
Draw = Callable[[float, int, np.random.Generator], Rates]

BAND = (93.0, 97.5)
DATA_SETS, DATA_SETS_BEFORE, RESAMPLES = 1500, 150, 200
IMAGES, DRAWS, SEEDS = (16, 64, 512), (1, 10), (1, 3)
ACCURACIES = (0.0, 0.02, 0.5, 0.9, 0.97, 0.99, 1.0)
DIFFERENCES = (0.0, 0.02, 0.1)
SPREAD = 0.5  # a + b of the beta distribution of skewed images: most rates are near 0 or 1
JITTER = 5.0  # a + b of the rate of one seed around a skewed image's own
CHANGED = 0.1  # share of images whose second rate is drawn anew, where two defenses are compared


def alike(p: float, n: int, random: np.random.Generator) -> Rates:
    """Every image has the same success rate."""
    return np.full(n, p)


def skewed(p: float, n: int, random: np.random.Generator) -> Rates:
    """A beta distribution of mean p."""
    return random.beta(p * SPREAD, (1 - p) * SPREAD, n) if 0 < p < 1 else np.full(n, p)


def all_or_nothing(p: float, n: int, random: np.random.Generator) -> Rates:
    """An image is always right or always wrong."""
    return (random.random(n) < p).astype(float)


def few_extreme(p: float, n: int, random: np.random.Generator) -> Rates:
    """Half of the rarer outcome comes from few images that are sure of it, the other half evenly from all others."""
    rare = min(p, 1 - p)
    rates = np.where(random.random(n) < rare / 2, 1.0, rare / 2 / (1 - rare / 2))
    return rates if p <= 0.5 else 1 - rates


POPULATIONS: dict[str, Draw] = {
    "alike": alike,
    "skewed": skewed,
    "all or nothing": all_or_nothing,
    "few extreme": few_extreme,
}


def scored(rates: Rates, seeds: int, draws: int, random: np.random.Generator) -> Rates:
    """Shares of right draws (seeds, images): fresh draws per seed; rates strictly between 0 and 1 move where they differ."""
    each = np.tile(rates, (seeds, 1))
    if seeds > 1 and rates.min() < rates.max():
        inside = (each > 1e-6) & (each < 1 - 1e-6)
        held = np.where(inside, each, 0.5)
        each = np.where(inside, random.beta(JITTER * held, JITTER * (1 - held)), each)
    return random.binomial(draws, each) / draws


def now(rate: Rates, draws: int) -> tuple[float, float]:
    """What `metric.accuracy` reports."""
    return share_interval(rate, draws)[1:]


def before(rate: Rates, draws: int) -> tuple[float, float]:
    """The bootstrap over images, then seeds, then draws; Clopper and Pearson's bound where all draws agree."""
    seeds, images = rate.shape
    if rate.min() == rate.max() and rate.max() in (0.0, 1.0):
        bound = 1 - math.exp(math.log(0.025) / images)
        return (1 - bound, 1.0) if rate.max() == 1 else (0.0, bound)
    random = np.random.default_rng(0)
    chosen = random.integers(images, size=(RESAMPLES, 1, images))
    again = random.integers(seeds, size=(RESAMPLES, seeds, 1))
    level = np.rint(rate * draws).astype(int)[again, chosen].reshape(RESAMPLES, -1)
    # Draws of all images at one rate are one binomial number: the bootstrap's own distribution, at a fraction of its time.
    place = level + (draws + 1) * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(place.ravel(), minlength=RESAMPLES * (draws + 1)).reshape(RESAMPLES, draws + 1)
    right = random.binomial(draws * counts, np.arange(draws + 1) / draws).sum(axis=1)
    low, high = np.quantile(right / (draws * seeds * images), [0.025, 0.975])
    return float(low), float(high)


def paired_now(difference: Rates, draws: int) -> tuple[float, float]:
    """What tables of differences report, here in [-1, 1]."""
    _, low, high = paired_interval(100 * difference)
    return low / 100, high / 100


def paired_before(difference: Rates, draws: int) -> tuple[float, float]:
    """The bootstrap of a difference, over images and seeds."""
    seeds, images = difference.shape
    random = np.random.default_rng(0)
    chosen = random.integers(images, size=(RESAMPLES, 1, images))
    again = random.integers(seeds, size=(RESAMPLES, seeds, 1))
    low, high = np.quantile(difference[again, chosen].mean(axis=(1, 2)), [0.025, 0.975])
    return float(low), float(high)


def coverage(
    population: str, p: float, n: int, seeds: int, draws: int, interval: Limits = now, sets: int = DATA_SETS
) -> float:
    """Percent of data sets whose interval holds p; one's own random numbers per cell, whatever else is asked for."""
    random = np.random.default_rng([n, seeds, draws, round(1000 * p), list(POPULATIONS).index(population)])
    sets = sets if 0 < p < 1 else 1  # at 0 and 1 every data set is the same
    held = 0
    for _ in range(sets):
        low, high = interval(scored(POPULATIONS[population](p, n, random), seeds, draws, random), draws)
        held += low - 1e-12 <= p <= high + 1e-12
    return 100 * held / sets


def paired_coverage(
    population: str,
    p: float,
    gained: float,
    n: int,
    seeds: int,
    draws: int,
    interval: Limits = paired_now,
    sets: int = DATA_SETS,
) -> float:
    """Percent of data sets whose interval holds the difference `gained` of two defenses on the same images.

    The first has accuracy p. Of the second, a share `CHANGED` of images is drawn anew, and as many images become sure as
    the difference takes.
    """
    place = list(POPULATIONS).index(population)
    random = np.random.default_rng([n, seeds, draws, round(1000 * p), round(1000 * gained), place])
    held = 0
    for _ in range(sets):
        first = POPULATIONS[population](p, n, random)
        anew = np.where(random.random(n) < CHANGED, POPULATIONS[population](p, n, random), first)
        even = (
            (p + gained) * np.ones(n)
            if population == "alike"
            else np.maximum(anew, random.random(n) < gained / (1 - p))
        )
        difference = scored(even, seeds, draws, random) - scored(first, seeds, draws, random)
        low, high = interval(difference, draws)
        held += low - 1e-12 <= gained <= high + 1e-12
    return 100 * held / sets


def marked(value: float, certain: bool = False) -> str:
    """Bold below the band; a plus above it, save where the truth is certain: there all data sets are one."""
    if value < BAND[0]:
        return f"**{value:.1f}**"
    return f"{value:.1f}" + ("+" if value > BAND[1] and not certain else "")


def tell(line: Sequence[str]) -> None:
    """Print one row of a Markdown table, as soon as it is known."""
    print("| " + " | ".join(line) + " |", flush=True)


def print_shares(sets: int, sets_before: int) -> None:
    """Rows: population, images, draws, seeds; columns: the true accuracy."""
    titles = ["images are", "n", "draws", "seeds", *(f"{p:g}" for p in ACCURACIES)]
    tell(titles)
    tell(["---"] * len(titles))
    for population, n, draws, seeds in product(POPULATIONS, IMAGES, DRAWS, SEEDS):
        cells = []
        for p in ACCURACIES:
            after = marked(coverage(population, p, n, seeds, draws, now, sets), p in (0, 1))
            old = f"{coverage(population, p, n, seeds, draws, before, sets_before):.0f} → " if sets_before else ""
            cells.append(old + after)
        tell([population, str(n), str(draws), str(seeds), *cells])


def print_pairs(sets: int, sets_before: int) -> None:
    """Rows: population, accuracy of the first defense, images, draws; columns: the true difference, of one seed and three."""
    columns = [f"{gained:g}" + (", 3 seeds" if seeds == 3 else "") for seeds, gained in product(SEEDS, DIFFERENCES)]
    titles = ["images are", "first", "n", "draws", *columns]
    tell(titles)
    tell(["---"] * len(titles))
    for population, p, n, draws in product(list(POPULATIONS)[:3], (0.05, 0.5), IMAGES, DRAWS):
        cells = []
        for seeds, gained in product(SEEDS, DIFFERENCES):
            place = (population, p, gained, n, seeds, draws)
            after = marked(paired_coverage(*place, paired_now, sets))
            old = f"{paired_coverage(*place, paired_before, sets_before):.0f} → " if sets_before else ""
            cells.append(old + after)
        tell([population, f"{p:g}", str(n), str(draws), *cells])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables and the Monte-Carlo error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", action="store_true", help="beside it the intervals of versions up to 1.0")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data sets")
    options = parser.parse_args(arguments)
    sets = DATA_SETS // 10 if options.quick else DATA_SETS
    sets_before = 0 if not options.before else DATA_SETS_BEFORE // 10 if options.quick else DATA_SETS_BEFORE
    print("An accuracy\n")
    print_shares(sets, sets_before)
    print("\nA difference of two accuracies on the same images\n")
    print_pairs(sets // 2, sets_before // 2)
    print()
    for name, count in (("accuracies", sets), ("differences", sets // 2), ("before, accuracies", sets_before)):
        if count:
            error = 100 * math.sqrt(0.95 * 0.05 / count)
            print(f"{name}: {count} data sets a cell, standard error of a coverage of 95 %: {error:.2f}")


if __name__ == "__main__":
    main()
