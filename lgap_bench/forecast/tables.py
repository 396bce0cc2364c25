"""Rates of a device that is not this one: `rates=<name>` of conf/rates, a file of the same form, or `tflops:40` as an assumption.

A table is what `python -m scripts.gpu.networks` writes: seconds and operations of one call of each network, by precision.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgap_bench import CONF

FOLDER = CONF / "rates"
ASSUMED = "tflops:"


@dataclass(frozen=True)
class Speed:
    """How fast networks compute on a device, in GFLOP a second, by their class and whether a gradient is taken.

    Attributes:
        name: what is told of it.
        classes: (class, gradient) -> GFLOP/s.
        others: of a network that the table does not have, by whether a gradient is taken: the median of those it has.
    """

    name: str
    classes: Mapping[tuple[str, bool], float]
    others: Mapping[bool, float]

    def seconds(self, gflop: Mapping[str, float], gradient: bool) -> float:
        """Of operations by class."""
        return sum(count / self.classes.get((kind, gradient), self.others[gradient]) for kind, count in gflop.items())


def speed(name: str, precision: str) -> Speed:
    """The table of this name. Raises ValueError for one that is unknown, damaged, or has nothing in this precision."""
    if name.startswith(ASSUMED):
        return _assumed(name)
    file = FOLDER / f"{name}.json" if (FOLDER / f"{name}.json").is_file() else Path(name).expanduser()
    known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.json")))
    if not file.is_file():
        raise ValueError(
            f"rates={name} is no table: use {known and f'one of {known}, '}a file of scripts.gpu.networks, or {ASSUMED}40"
        )
    try:
        rows = [row for row in json.loads(file.read_text())["rows"] if not row.get("out_of_memory")]
        held = [row for row in rows if row["precision"] == precision]
        found = _speeds(held)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(
            f"rates={name}: {file} is no table of scripts.gpu.networks ({type(error).__name__}: {error})"
        ) from None
    if not found:
        others = ", ".join(sorted({row["precision"] for row in rows})) or "nothing"
        raise ValueError(f"rates={name} has no {precision}, only {others}: choose precision=, or another table")
    by_way = {way: [rate for (_, own), rate in found.items() if own == way] for way in (False, True)}
    return Speed(file.stem, found, {way: statistics.median(each or by_way[not way]) for way, each in by_way.items()})


def _speeds(rows: list[Mapping[str, Any]]) -> dict[tuple[str, bool], float]:
    """GFLOP a second of every class, at the most rows that were tried."""
    most: dict[str, int] = defaultdict(int)
    for row in rows:
        most[row["class"]] = max(most[row["class"]], row["rows"])
    found = {}
    for row in rows:
        for way in ("forward", "gradient"):
            if row["rows"] == most[row["class"]] and row.get(way) and row[way]["gflop"]:
                found[row["class"], way == "gradient"] = row[way]["gflop"] / row[way]["seconds"]
    return found


def _assumed(name: str) -> Speed:
    """So many TFLOP a second whatever the network: an assumption, and told as one."""
    try:
        rate = float(name.removeprefix(ASSUMED))
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e6:
        raise ValueError(f"rates={name}: write how many TFLOP a second are to be assumed, {ASSUMED}40")
    return Speed(f"assumed {rate:g} TFLOP/s", {}, {False: 1000 * rate, True: 1000 * rate})


def precision_of(dtype: str, tf32: bool, compiled: bool) -> str:
    """What a cell's precision is called in a table."""
    if dtype == "float32":
        return "tf32" if tf32 else "float32"
    return f"{dtype}_compiled" if compiled and dtype == "float16" else dtype
