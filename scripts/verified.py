"""How often `verify` disagrees: with honest records, and with numbers that were raised by so many points.

    python -m scripts.verified [--quick]

Images have their own success rates (a beta distribution, most near 0 or 1); record and check draw from the same rates. A
raised number is the record's after wrong draws were turned into right ones until its mean is up by so many points, which is
what a lie has to do to pass the record's own seals. No wrong answer is close to turning. `--quick`: a tenth of the records.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from lgap_bench.metric.interval import paired_interval
from lgap_bench.verify.judge import tolerated
from scripts.coverage import Rates, skewed

RECORDS = 2000
IMAGES, DRAWS, ACCURACIES, RAISED = (32, 128, 512), (1, 10), (0.5, 0.9), (0, 2, 5, 10, 20)


def disagrees(rates: Rates, draws: int, raised: float, random: np.random.Generator) -> bool:
    """Whether one simulated record, its mean raised by so many points, is told from new draws of its images.

    `draws` of 1 is a defense without randomness: both sides then have the same answers.
    """
    right = random.random((draws, len(rates))) < rates
    again = right if draws == 1 else random.random((draws, len(rates))) < rates
    claimed = right.copy()
    wrong = np.flatnonzero(~claimed)
    claimed.flat[random.permutation(wrong)[: round(raised / 100 * claimed.size)]] = True
    if draws == 1 and int((claimed != again).sum()) > tolerated(len(rates)):
        return True
    points = 100 * (again.mean(0) - claimed.mean(0))
    _, low, high = paired_interval(points[None])
    return not low <= 0 <= high


def share(images: int, draws: int, accuracy: float, raised: float, records: int) -> float:
    """Percent of the records that `verify` disagrees with."""
    random = np.random.default_rng([images, draws, int(100 * accuracy), int(raised)])
    told = [disagrees(skewed(accuracy, images, random), draws, raised, random) for _ in range(records)]
    return 100 * float(np.mean(told))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    records = RECORDS // 10 if parser.parse_args(arguments).quick else RECORDS
    print("| images | draws | accuracy, % | " + " | ".join(f"raised by {r}" if r else "honest" for r in RAISED) + " |")
    print("|" + " --- |" * (3 + len(RAISED)))
    for images in IMAGES:
        for draws in DRAWS:
            for accuracy in ACCURACIES:
                cells = [
                    f"{share(images, draws, accuracy, r, records):.1f}" if 100 * accuracy + r <= 100 else "–"
                    for r in RAISED
                ]
                print(f"| {images} | {draws} | {100 * accuracy:.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
