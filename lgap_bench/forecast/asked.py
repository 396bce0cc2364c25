"""A cell's work per image, in the words of its table: passes of the defense, calls of each network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from lgap_bench.cell.config import Cell
from lgap_bench.forecast.tally import Kind, Work


def kinds_of(whole: Work, cell: Cell) -> dict[Kind, int]:
    """Rows of a typical pass of each kind."""
    return {kind: max(1, round(min(cell.max_rows, rows / max(calls, 1)))) for kind, (calls, rows) in whole.items()}


def asked_per_image(whole: Work, cell: Cell) -> tuple[float, float]:
    """Rows per image with a gradient and without: through the purifier, or where the attacker meets no other, the classifier."""
    rows = {True: 0.0, False: 0.0}
    for (part, gradient), (_, count) in whole.items():
        if part.startswith("purify") or part == "other" or (gradient and part == "classify"):
            rows[gradient] += count
    both = min(whole.get(("purify", True), (0, 0.0))[1], whole.get(("classify", True), (0, 0.0))[1])
    return (rows[True] - both) / cell.n, rows[False] / cell.n


def networks_per_image(whole: Work, calls: Mapping[Kind, Mapping[str, float]], cell: Cell) -> dict[str, float]:
    """Calls of each network per image, over all kinds of work; `calls`: those of one row of each kind."""
    found: dict[str, float] = defaultdict(float)
    for kind, (_, rows) in whole.items():
        for name, each in calls[kind].items():
            found[name] += each * rows / cell.n
    return dict(found)
