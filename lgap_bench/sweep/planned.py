"""A plan as a page: a row per cell, what its networks are asked for, what is trained before, and the sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lgap_bench.cell.compose import resolved
from lgap_bench.cell.config import Cell
from lgap_bench.cell.needs import missing
from lgap_bench.forecast.cost import FEW, Forecast, named, read
from lgap_bench.record import Record
from lgap_bench.report.page import Page, Table
from lgap_bench.runtime import forecasts
from lgap_bench.runtime.device import find_device

COLUMNS = (
    "cell", "images", "there", "gradients", "passes", "time", "if_unbroken", f"time_{FEW}", "pflop", "memory_gib", "disk_mib", "rates",
)  # fmt: skip
SUM = "all that is left"


def page(found: Sequence[Any], words: str) -> Page:
    """The page of forecasts; cells without one are named with the reason below."""
    known = [each for each in found if isinstance(each, Forecast)]
    refused = [each for each in found if not isinstance(each, Forecast)]
    tables = [Table(COLUMNS, [*_rows(known), _sum(known)], f"{len(known)} {_cells(len(known))}")]
    tables += _networks(known) + _trained(known)
    columns = [name for name in COLUMNS if name == "cell" or any(row.get(name) is not None for row in tables[0].rows)]
    tables[0] = replace(tables[0], columns=columns)
    return Page("plan", f"what it costs: {words}", tables=tables, notes=[*_notes(known), *_reasons(refused)])


def _rows(known: Sequence[Forecast]) -> list[dict[str, Any]]:
    """A row per cell; one whose record an earlier row makes says so."""
    first: dict[str, str] = {}
    rows = []
    for each in known:
        other = first.setdefault(each.same, each.cell)
        left = other != each.cell and each.there < each.chunks
        rows.append(_row(each) | ({"there": f"with {other}"} if left else {}))
    return rows


def _row(each: Forecast) -> dict[str, Any]:
    there = "recorded" if each.there == each.chunks else f"{each.there} of {each.chunks} chunks" if each.there else None
    return {
        "cell": each.cell,
        "images": each.images,
        "there": there,
        "gradients": round(each.gradients) if each.networks else None,
        "passes": round(each.passes) if each.networks else None,
        "time": duration(each.seconds),
        "if_unbroken": duration(each.unbroken),
        f"time_{FEW}": duration(each.few_seconds),
        "pflop": amount(each.pflop),
        "memory_gib": None if each.memory_mib is None else each.memory_mib / 1024,
        "disk_mib": each.disk_mib,
        "rates": each.rates,
    }


def _sum(known: Sequence[Forecast]) -> dict[str, Any]:
    """Of what is not recorded, each record once: the time of one device, the largest memory, the disk of all."""
    left = list({each.same: each for each in known if each.there < each.chunks}.values())
    trained = {stage.id: stage.seconds or 0.0 for each in left for stage in each.trained}
    few = [each.few_seconds if each.few_seconds is not None else each.left for each in left]
    return {
        "cell": SUM,
        "images": sum(each.images for each in left),
        "time": duration(sum(each.left or 0.0 for each in left) + sum(trained.values())),
        "if_unbroken": duration(sum(each.unbroken or 0.0 for each in left) + sum(trained.values())),
        f"time_{FEW}": duration(sum(each or 0.0 for each in few) + sum(trained.values()))
        if any(each.few_seconds is not None for each in left)
        else None,
        "pflop": amount(sum(each.pflop or 0.0 for each in left) or None),
        "memory_gib": max((each.memory_mib or 0.0 for each in left), default=0.0) / 1024,
        "disk_mib": sum(each.disk_mib for each in left),
    }


def _networks(known: Sequence[Forecast]) -> list[Table]:
    """Calls of each network per image."""
    names = list(dict.fromkeys(name for each in known for name in each.networks))
    rows = [
        {"cell": each.cell, **{name: round(calls) for name, calls in each.networks.items()}}
        for each in known
        if each.networks
    ]
    return [Table(["cell", *names], rows, "calls of each network per image", "networks")] if rows else []


def _trained(known: Sequence[Forecast]) -> list[Table]:
    stages = {stage.id: stage for each in known for stage in each.trained}
    rows = [
        {"trained first": each.name, "weights": each.id, "images": each.images, "time": duration(each.seconds)}
        for each in stages.values()
    ]
    return (
        [Table(["trained first", "weights", "images", "time"], rows, "trained once, before the cells", "trained")]
        if rows
        else []
    )


def _notes(known: Sequence[Forecast]) -> list[str]:
    notes = [
        "time is that of one device, on a CPU of one thread, without others beside it; divide it by the devices that work at once",
        "gradients, passes: rows per image through the defense, with a gradient and without; if_unbroken: no image leaves the attack early",
    ]
    if any(
        each.seconds is not None and each.rates == "measured here" and not each.pilot and each.networks
        for each in known
    ):
        notes.append("where even one image takes more than a minute none was attacked: time is then if_unbroken's")
    return notes


def _reasons(refused: Sequence[Any]) -> list[str]:
    """What could not be forecast: each reason once, with how many cells met it."""
    by_reason: dict[str, list[str]] = {}
    for each in refused:
        by_reason.setdefault(each.reason, []).append(each.cell)
    return [
        f"not forecast: {cells[0]}{f' and {len(cells) - 1} more' if len(cells) > 1 else ''}: {reason}"
        for reason, cells in by_reason.items()
    ]


def known_sum(every: Sequence[Sequence[str]]) -> list[str]:
    """What a dry sweep says of the cost: the sum of what was forecast of its cells before, and what has no forecast yet."""
    cells = [resolved(list(words)) for words in every]
    found = [known for cell in cells if (known := _before(cell)) is not None]
    lines = []
    if found:
        total = _sum(found)
        time, there = total["time"], sum(each.there == each.chunks for each in found)
        lines.append(
            f"  what is left takes {time} of one device, {total['memory_gib']:.1f} GiB at most and {total['disk_mib']:.1f} MiB of disk"
            + (f"; {there} recorded" if there else "")
        )
    if len(found) < len(cells):
        lines.append(
            f"  {len(cells) - len(found)} of {len(cells)} without a forecast: lgap-bench plan with the same words makes it"
        )
    return lines


def _before(cell: Cell) -> Forecast | None:
    """The forecast that was made of a cell, or what its record cost."""
    if missing(cell):
        return None
    known = named(cell, find_device(cell.device))
    record = Record(cell.outputs / "records" / known.id)
    if record.complete:
        return known.measured(record.run())
    held = forecasts.kept(cell.outputs, known.id)
    return None if held is None else replace(read(held), there=known.there, same=known.same)


def duration(seconds: float | None) -> str | None:
    """`38 s`, `12 min`, `5.2 h`, `312 h`; None stays None."""
    if seconds is None:
        return None
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 360_000 else f"{seconds / 3600:,.0f} h"


def amount(value: float | None) -> str | None:
    """Three digits: `0.41`, `12.3`, `70,400`; None stays None."""
    if value is None:
        return None
    return f"{value:.3g}" if value < 1000 else f"{float(f'{value:.3g}'):,.0f}"


def _cells(count: int) -> str:
    return "cell" if count == 1 else "cells"
