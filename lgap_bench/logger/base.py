"""Loggers: who is told how a cell goes. They see records and counts, never models, and they can stop nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from lgap_bench.cell.config import Cell
from lgap_bench.record import Record


@dataclass(frozen=True)
class Done:
    """How far a cell is.

    Attributes:
        index: of the chunk that was finished last, or taken from the record.
        images, n: samples of this call's share that are scored, and all of them: the cell's, or its shard's.
        robust: accuracy so far in percent, over the samples whose attack did not fail; NaN where all failed.
        left: seconds to go, by the pace of this call.
    """

    index: int
    images: int
    n: int
    robust: float
    left: float


class Logger:
    """Base class: hears everything, says nothing. A logger overrides what it wants to know.

    In a cell's order: `preparing`; `started`, `phase`, `step` and `chunk` as often as there is something to tell, then one
    of `finished`, `waits` and `failed`; `closed` in any case. A cell that answers from its record tells no more than the first and
    the last.
    """

    def preparing(self, cell: Cell) -> None:
        """The cell can work; what it is made of is read, to know its record."""

    def started(self, cell: Cell, record: Record) -> None:
        """The cell will be measured, into this record."""

    def phase(self, text: str) -> None:
        """What goes on outside the chunks: training, purifying training images."""

    def step(self, name: str, k: int, n: int | None) -> None:
        """Inside a chunk or a phase: `name` (step, call, image) number k of n, or of nobody knows how many."""

    def chunk(self, done: Done) -> None:
        """A chunk is finished and saved."""

    def finished(self, record: Record) -> None:
        """The record is whole."""

    def waits(self, record: Record) -> None:
        """This call's shard is done, and the record is not whole before others are."""

    def failed(self, error: BaseException) -> None:
        """The cell ends here, with this error."""

    def closed(self) -> None:
        """Nothing follows."""


class Loggers(Logger):
    """Several loggers as one. One that fails is named once and left out from then on: it never stops a cell."""

    def __init__(self, loggers: Sequence[Logger] = ()) -> None:
        self.loggers = list(loggers)

    def preparing(self, cell: Cell) -> None:
        """Told to all."""
        self._tell("preparing", cell)

    def started(self, cell: Cell, record: Record) -> None:
        """Told to all."""
        self._tell("started", cell, record)

    def phase(self, text: str) -> None:
        """Told to all."""
        self._tell("phase", text)

    def step(self, name: str, k: int, n: int | None) -> None:
        """Told to all."""
        self._tell("step", name, k, n)

    def chunk(self, done: Done) -> None:
        """Told to all."""
        self._tell("chunk", done)

    def finished(self, record: Record) -> None:
        """Told to all."""
        self._tell("finished", record)

    def waits(self, record: Record) -> None:
        """Told to all."""
        self._tell("waits", record)

    def failed(self, error: BaseException) -> None:
        """Told to all."""
        self._tell("failed", error)

    def closed(self) -> None:
        """Told to all."""
        self._tell("closed")

    def _tell(self, event: str, *what: object) -> None:
        for logger in list(self.loggers):
            try:
                getattr(logger, event)(*what)
            except Exception as error:
                self.loggers.remove(logger)
                leave_out(type(logger).__name__, error)


def leave_out(name: str, error: BaseException) -> None:
    """Say in one line that a logger failed and hears no more."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"lgap-bench: logger {name} failed and is left out ({text})", file=sys.stderr, flush=True)


SILENT = Loggers()
