"""The progress line on stderr: rewritten on a terminal, a line per chunk in a log."""

from __future__ import annotations

import sys

from lgap_bench.cell.config import Cell
from lgap_bench.logger.base import Done, Logger
from lgap_bench.record import Record


class Console(Logger):
    """Robust-so-far and the time left, and what goes on before the first chunk."""

    def __init__(self) -> None:
        self.live, self.title, self.open = sys.stderr.isatty(), "", False

    def started(self, cell: Cell, record: Record) -> None:
        """Remember what the cell is called."""
        self.title = cell.title

    def phase(self, text: str) -> None:
        """A line of its own."""
        self._close()
        print(text, file=sys.stderr, flush=True)

    def chunk(self, done: Done) -> None:
        """The progress line."""
        line = f"{self.title}: {done.images}/{done.n}  robust so far {done.robust:5.1f} %  {done.left:4.0f} s left"
        print(f"\r{line:<78}" if self.live else line, end="" if self.live else "\n", file=sys.stderr, flush=True)
        self.open = self.live

    def finished(self, record: Record) -> None:
        """Leave the progress line as it is."""
        self._close()

    def waits(self, record: Record) -> None:
        """Leave the progress line as it is."""
        self._close()

    def failed(self, error: BaseException) -> None:
        """The error's own line is printed by whoever catches it."""
        self._close()

    def _close(self) -> None:
        """End the line that is being rewritten."""
        if self.open:
            print(file=sys.stderr)
            self.open = False
