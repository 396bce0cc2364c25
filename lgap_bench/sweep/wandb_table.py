"""One run on W&B for a whole sweep: the paper's table, published values beside measured ones, or a row per cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lgap_bench.logger.base import leave_out
from lgap_bench.logger.wandb import send_table
from lgap_bench.logger.wandb_settings import Settings, chosen
from lgap_bench.record import Record
from lgap_bench.report.command import item
from lgap_bench.report.page import Rows, shown
from lgap_bench.report.pages import paper
from lgap_bench.report.pages.all import COLUMNS
from lgap_bench.report.rows import Merger, merge
from lgap_bench.sweep.status import SweepFolder


def send(folder: SweepFolder, names: Sequence[str] = ()) -> None:
    """Send the tables of a sweep that ended, if W&B is among its loggers. Whatever fails is said and stops nothing.

    `names` are the items of a paper that the sweep was started for; without them those whose experiments it ran.
    """
    try:
        held = chosen(folder.head().get("loggers"))
        if held is not None:
            _send(folder, names, held)
    except Exception as error:
        leave_out("wandb", error)


def _send(folder: SweepFolder, names: Sequence[str], held: Settings) -> None:
    outputs = folder.path.parent.parent
    for name, columns, rows in _papers(folder, names, outputs) or _cells(folder, outputs):
        send_table(outputs, f"{folder.shared_name} {name}".strip(), columns, rows, held, shown)


def _papers(folder: SweepFolder, names: Sequence[str], outputs: Path) -> list[tuple[str, Sequence[str], Rows]]:
    """Every table of a paper that the sweep has measured a row of."""
    words = [word for word in folder.head().get("words", []) if word.startswith("dataset=")]
    dataset = words[-1].removeprefix("dataset=") if words and "," not in words[-1] else None
    ran = {experiment for job in folder.jobs() if (experiment := _experiment(job.overrides))}
    found, shared = [], Merger()
    for name in names or [each for each in paper.known() if ran & paper.experiments(paper.load(each))]:
        if not paper.experiments(paper.load(name)):
            continue  # a figure, or made by a script
        for page in item(name, outputs, dataset, shared):
            if page.measured:
                found += [(page.name, table.columns, table.rows) for table in page.tables]
    return found


def _cells(folder: SweepFolder, outputs: Path) -> list[tuple[str, Sequence[str], Rows]]:
    """A row per cell of the sweep that has a record."""
    ids = dict.fromkeys(job.record for job in folder.jobs() if job.record)
    held = [Record(outputs / "records" / each) for each in ids]
    rows = [merge([record]) for record in held if record.complete]
    return [("", COLUMNS, rows)] if rows else []


def _experiment(overrides: Sequence[str]) -> str:
    """The experiment of a job, by `experiment=lgap/table1/lgap` or `+experiment/lgap/table1=lgap`."""
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key == "experiment":
            return value
        if key.startswith("experiment/"):
            return f"{key.removeprefix('experiment/')}/{value}"
    return ""
