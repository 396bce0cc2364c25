"""Two defenses on the same images: the difference of their robust accuracies, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from lgap_bench.metric.interval import paired_interval
from lgap_bench.record import Record
from lgap_bench.report.select import Row
from lgap_bench.report.worst import worst_case

WORST = "worst"  # the worst attack per image, chosen on select draws


def differences(
    held: Sequence[tuple[str, Row]], pairs: Sequence[Sequence[str]], attacks: Sequence[str]
) -> list[dict[str, Any]]:
    """One line per pair of purifiers, a column per attack: `+2.2 (0.4 to 4.2)` points; pairs that were not measured are left out.

    Args:
        held: label and row of every defense on the same images. Of a purifier with several settings each is paired.
        pairs: the purifiers' names.
        attacks: the columns; `worst` is each defense's worst attack per image, which says `of 5 and of 3` where the two
            met different attacks.

    Each defense is under its own attack. Intervals of single defenses overlap where images are alike hard for both; those
    of the difference do not count that twice. Images whose attack failed on either side are left out. Raises ValueError where
    the two were measured on different images.
    """
    lines = []
    for pair in pairs:
        firsts, seconds = ([each for each in held if each[1].facts["purifier"] == name] for name in pair)
        for (first, row), (second, other) in product(firsts, seconds):
            told = {attack: _told((row, attack), (other, attack)) for attack in attacks}
            lines.append({"difference": f"{first} - {second}", **told})
    return lines if any(any(list(line.values())[1:]) for line in lines) else []


def across(held: Sequence[tuple[str, Row]], pairs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """As `differences`, of sides named `coup full_detached`: each its own purifier and attack."""
    lines = []
    for pair in pairs:
        names = [side.split() for side in pair]
        rows = [[each for each in held if each[1].facts["purifier"] == purifier] for purifier, _ in names]
        for (first, row), (second, other) in product(*rows):
            if told := _told((row, names[0][1]), (other, names[1][1])):
                lines.append({"difference": f"{first} {names[0][1]} - {second} {names[1][1]}", "points": told})
    return lines


def _told(first: tuple[Row, str], second: tuple[Row, str]) -> str | None:
    both = [_rates(*side) for side in (first, second)]
    seeds = sorted(both[0].keys() & both[1].keys())
    if not seeds:
        return None
    if any(both[0][seed].keys() != both[1][seed].keys() for seed in seeds):
        raise ValueError(f"{first[1]}: two defenses were measured on different images: measure both with the same n")
    kept = [i for i in both[0][seeds[0]] if not any(np.isnan(side[seed][i]) for side in both for seed in seeds)]
    if not kept:
        return None
    rates = [[[side[seed][i] for i in kept] for seed in seeds] for side in both]
    mean, low, high = paired_interval(100 * (np.asarray(rates[0]) - np.asarray(rates[1])))
    return f"{mean:+.1f} ({low:.1f} to {high:.1f}){_of(first, second)}"


def _of(first: tuple[Row, str], second: tuple[Row, str]) -> str:
    """Where two worst cases are not of the same attacks: of how many each is."""
    if WORST not in (first[1], second[1]):
        return ""
    sets = [set(next(iter(row.most_attacked.values()))) for row, _ in (first, second)]
    return "" if sets[0] == sets[1] else f", of {len(sets[0])} and of {len(sets[1])}"


def _rates(row: Row, attack: str) -> Mapping[int, dict[int, float]]:
    """Seed -> image -> share of right draws, NaN where the attack failed."""
    met: dict[int, list[Record]] = {seed: [found[attack]] for seed, found in row.seeds.items() if attack in found}
    if attack == WORST:
        met = {seed: list(found.values()) for seed, found in row.most_attacked.items() if len(found) > 1}
    rates = {}
    for seed, records in met.items():
        case = worst_case(records)
        ids = (int(i) for i in records[0].samples()["id"])
        rates[seed] = dict(zip(ids, np.where(case.failed, np.nan, case.right.mean(1)).tolist(), strict=True))
    return rates
