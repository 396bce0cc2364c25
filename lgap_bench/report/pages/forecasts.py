"""Forecast against actual: of every record that was forecast what it was to cost and what it did, in seconds and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lgap_bench.record import Record
from lgap_bench.report.browser.entries import title
from lgap_bench.report.page import Page, Table

COLUMNS = (
    "cell",
    "images",
    "forecast_s",
    "took_s",
    "forecast_over_took",
    "forecast_gib",
    "took_gib",
    "rates",
)
TOLD = ("dataset=", "outputs=", "hydra")  # words that tell no cell of a sweep from another
NEAR = 20  # percent within which a forecast is to lie


def page(found: Sequence[Record]) -> Page | None:
    """The page; None where nothing was forecast."""
    rows = [row for record in found if (row := _row(record)) is not None]
    if not rows:
        return None
    near = sum(abs(float(row["forecast_over_took"]) - 1) <= NEAR / 100 for row in rows)
    notes = [
        f"{near} of {len(rows)} forecasts lie within {NEAR} % of what the cell took.",
        "On a CPU the seconds are the processor's, which others on the machine do not change; memory is the whole process's.",
    ]
    return Page("forecasts", "Forecast against actual", tables=[Table(COLUMNS, rows)], notes=notes)


def _row(record: Record) -> dict[str, Any] | None:
    run = record.run()
    told, took = run.get("forecast"), _took(run)
    if not isinstance(told, dict) or not told.get("seconds") or not took:
        return None
    return {
        "cell": _cell(record),
        "images": told.get("images"),
        "forecast_s": float(told["seconds"]),
        "took_s": float(took),
        "forecast_over_took": f"{told['seconds'] / took:.2f}",
        "forecast_gib": _gib(told.get("memory_mib")),
        "took_gib": _gib(run.get("peak_memory_mib")),
        "rates": told.get("rates"),
        "records": record.folder.name,
    }


def _cell(record: Record) -> str:
    """The experiment that it was first asked for as, with what was asked beside it; of another cell what it is in words."""
    for each in record.requests():
        more = [word for word in each["overrides"] if not word.startswith((f"experiment={each['experiment']}", *TOLD))]
        return " ".join([each["experiment"], *more])
    return title(record)


def _took(run: Any) -> float | None:
    """The processor's seconds on a CPU of one thread, as the forecast's; else the clock's."""
    worked = run.get("processor_seconds")
    found: float | None = (
        worked if run.get("device") == "cpu" and worked and worked <= 1.05 * run["seconds"] else run.get("seconds")
    )
    return found


def _gib(mib: Any) -> float | None:
    return None if mib is None else float(mib) / 1024
