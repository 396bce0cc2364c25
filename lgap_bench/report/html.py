"""`lgap-bench report html=report.html [table=...]`: which records and items of papers stand on the page, and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lgap_bench.record import Record
from lgap_bench.report.browser.build import writable_file, write_page
from lgap_bench.report.page import Page, Unmeasured
from lgap_bench.report.pages import all as all_records
from lgap_bench.report.pages import paper
from lgap_bench.report.rows import Merge, Merger, merge, requested_by

Items = Callable[[str, Path, str | None, Merge], list[Page]]  # an item's name, outputs, data set -> its pages


def write_report(path: Path, outputs: Path, item: Items, table: str | None = None, dataset: str | None = None) -> Path:
    """Write the page of a whole outputs folder, or of one table's records; returns its path.

    Raises ValueError in one line where there is no record to show, a table is not known, or the file cannot be written.
    """
    writable_file(path)
    found, shared = all_records.finished(outputs, dataset if table is None else None), Merger()
    if table is None:
        return write_page(found, path, measured(paper.known(), outputs, item, dataset, shared), "What holds", shared)
    held = paper.load(str(table))
    own = records_of(held, found, dataset)
    if not own:
        raise ValueError(f"table={table}: no record of its experiments in {outputs / 'records'}: nothing to show")
    return write_page(own, path, measured([str(table)], outputs, item, dataset, shared), held["title"], shared)


def measured(
    names: Sequence[str], outputs: Path, item: Items, dataset: str | None = None, merge: Merge = merge
) -> list[Page]:
    """The items' pages of which anything was measured; claims stand on the page by themselves."""
    pages: list[Page] = []
    for name in names:
        if "claims" not in paper.load(name):
            with suppress(Unmeasured):
                pages += [page for page in item(name, outputs, dataset, merge) if page.measured]
    return pages


def records_of(table: Mapping[str, Any], found: Sequence[Record], dataset: str | None = None) -> list[Record]:
    """The records that an item of any kind is made from, by the experiments that it names."""
    named = experiments_of(table)
    return [record for record in found if any(requested_by(record, each, dataset) for each in named)]


def experiments_of(table: Mapping[str, Any]) -> set[str]:
    """Every experiment that an item of any kind names."""
    named = paper.experiments(table) | set(table.get("pictures", ()))
    for kind in ("sweep", "compare", "curve", "strata"):
        named |= set(table.get(kind, {}).get("experiments", ()))
    for claim in table.get("claims", ()):
        named |= {each for key in ("protocol", "experiments", "over") for each in claim.get(key, ())}
    return named
