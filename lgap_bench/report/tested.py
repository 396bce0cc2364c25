"""Paired tests between the rows of a table: which differences on the same images are more than chance?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.metric.hypothesis import holm, mcnemar, sign_flip
from lgap_bench.metric.interval import paired_interval
from lgap_bench.record import Record
from lgap_bench.report.page import Page, Table
from lgap_bench.report.worst import worst_case

COLUMNS = ("pair", "points", "interval", "sign_flip", "sign_flip_holm", "only_first", "only_second", "mcnemar", "mcnemar_holm", "images")  # fmt: skip
CAPTION = "robust accuracy, pairs of rows on the same images"
NOTE = (
    "sign_flip: p of the exact sign-flip test on per-image means; mcnemar: p of McNemar's exact test on the majority of all draws, "
    "with the images that the first or the second row alone has right; _holm: corrected for all pairs of the table"
)
SAME = ("dataset", "norm", "eps", "n")  # of rows that are paired; in a table of purifiers x attacks the attack as well


@dataclass(frozen=True)
class Answers:
    """What a row's records say of each image, over all seeds.

    Attributes:
        right: (seeds, images, draws) under attack.
        ids: of the images, without those whose attack failed in any seed.
    """

    name: str
    records: frozenset[str]
    right: NDArray[np.bool_]
    ids: tuple[int, ...]


def with_tests(page: Page, outputs: Path) -> Page:
    """The page with one more table: every pair of its measured rows that may be compared. The page itself if there is none."""
    found = paired_tests(page.data[0].rows if page.data else (), outputs)
    if not found:
        return page
    table = Table(COLUMNS, [{key: _shown(key, value) for key, value in line.items()} for line in found], CAPTION)
    data = [*(page.data or page.tables), Table(COLUMNS, found, CAPTION, "paired")]
    return replace(page, tables=[*page.tables, table], data=data, notes=[*page.notes, NOTE])


def paired_tests(rows: Sequence[Mapping[str, Any]], outputs: Path) -> list[dict[str, Any]]:
    """One line per pair of rows on the same data, budget and images; p values corrected over all of them."""
    groups: dict[tuple[Any, ...], list[Answers]] = defaultdict(list)
    for row in rows:
        if row.get("records") and "robust" in row:
            attack = None if "state" in row else row["attack"]  # a paper's own rows have a state
            groups[(*(row.get(key) for key in SAME), attack)].append(_answers(row, outputs))
    lines, met = [], set()
    for group in groups.values():
        for first, second in combinations(group, 2):
            pair = frozenset((first.records, second.records))
            contained = first.records <= second.records or second.records <= first.records
            if contained or pair in met:  # a row that stands in the table twice counts once
                continue
            met.add(pair)
            if (line := _line(first, second)) is not None:
                lines.append(line)
    for test in ("sign_flip", "mcnemar"):
        for line, corrected in zip(lines, holm([line[test] for line in lines]), strict=True):
            line[f"{test}_holm"] = corrected
    return lines


def _answers(row: Mapping[str, Any], outputs: Path) -> Answers:
    """A row of several attacks has each image under its worst, as `worst_per_image` scores it."""
    names = row["records"].split()
    by_seed: dict[int, list[Record]] = defaultdict(list)
    for record in (Record(outputs / "records" / name) for name in names):
        by_seed[record.summary()["seed"]].append(record)
    cases = [worst_case(by_seed[seed]) for seed in sorted(by_seed)]
    kept = ~np.any([case.failed for case in cases], axis=0)
    ids = np.asarray(next(iter(by_seed.values()))[0].samples()["id"])
    differs = f" ({row['differs']})" if row.get("differs") else ""
    title = row["row"] if "state" in row else f"{row['purifier']}, {row['attack']}"
    right = np.asarray([case.right for case in cases])[:, kept]
    return Answers(f"{title}{differs}", frozenset(names), right, tuple(ids[kept].tolist()))


def _line(first: Answers, second: Answers) -> dict[str, Any] | None:
    """The two rows over the images that both have; None where they have none in common."""
    common = sorted(set(first.ids) & set(second.ids))
    if not common:
        return None
    places = [{each: place for place, each in enumerate(side.ids)} for side in (first, second)]
    sides = [side.right[:, [own[i] for i in common]] for side, own in zip((first, second), places, strict=True)]
    # The mean over seeds and draws; of rows with unequal numbers of either, brought to a common count.
    counts = [side.shape[0] * side.shape[2] for side in sides]
    scale = int(np.lcm(*counts))
    sums = [side.sum((0, 2)).astype(np.int64) * (scale // count) for side, count in zip(sides, counts, strict=True)]
    majorities = [2 * each > scale for each in sums]
    mean, low, high = paired_interval(100 * (sums[0] - sums[1])[None] / scale)
    only_first, only_second, p = mcnemar(*majorities)
    return {
        "pair": f"{first.name} - {second.name}",
        "points": mean,
        "interval": f"{low:.1f} to {high:.1f}",
        "sign_flip": sign_flip(sums[0] - sums[1]),
        "only_first": only_first,
        "only_second": only_second,
        "mcnemar": p,
        "images": len(common),
    }


def _shown(key: str, value: Any) -> Any:
    """A p value with the digits that tell something, a difference with its sign."""
    if key.startswith(("sign_flip", "mcnemar")):
        return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
    return f"{value:+.1f}" if key == "points" else value
