"""A line per finished chunk in a CSV file, for whoever plots progress with tools of their own."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable
from pathlib import Path

from lgap_bench.cell.config import Cell
from lgap_bench.logger.base import Done, Logger
from lgap_bench.record import Record

COLUMNS = ("time", "record", "cell", "seed", "chunk", "images", "n", "robust", "seconds_left")


class Csv(Logger):
    """Appends to one file, however many cells and processes write there.

    Args:
        path: the file; None is progress.csv in the outputs folder.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.cell: list[object] = []
        self.file = Path()

    def started(self, cell: Cell, record: Record) -> None:
        """Whose lines follow; the first writer adds the head."""
        self.file = self.path or cell.outputs / "progress.csv"
        self.cell = [record.folder.name, cell.title, cell.seed]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.file.open("x") as file:
                file.write(_line(COLUMNS))
        except FileExistsError:
            pass

    def chunk(self, done: Done) -> None:
        """One line, in one write, so that lines of several processes do not mix."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        counts = [done.index, done.images, done.n, f"{done.robust:.4f}", f"{done.left:.1f}"]
        with self.file.open("a") as file:
            file.write(_line([at, *self.cell, *counts]))


def _line(values: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
