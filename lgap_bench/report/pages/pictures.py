"""Grids of some experiments under one another (LGAP, figure 2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lgap_bench.record import records
from lgap_bench.report.grid import Titled, grids
from lgap_bench.report.missing import unrun
from lgap_bench.report.page import Figure, Page, Unmeasured
from lgap_bench.report.rows import Merge, merge, requested_by, settings_line


def page(name: str, table: Mapping[str, Any], outputs: Path, dataset: str | None, merge: Merge = merge) -> Page:
    """The record with the smallest seed of each experiment. Raises ValueError where there is none at all."""
    found: list[Titled] = []
    for experiment, title in table["pictures"].items():
        own = [record for record in records(outputs) if requested_by(record, experiment, dataset)]
        found += [(record, title) for record in sorted(own, key=lambda record: record.summary()["seed"])[:1]]
    if not found:
        raise Unmeasured(f"table={name}: no record of its experiments in {outputs / 'records'}: run make tables")
    settings = settings_line([merge([record]) for record, _ in found])
    return Page(
        name.replace("/", "-"), table["title"], settings,
        figures=[Figure(lambda: grids(found, found[0][0].classes()))], notes=[*table.get("notes", ()), *unrun(table["pictures"], records(outputs), dataset)],
    )  # fmt: skip
