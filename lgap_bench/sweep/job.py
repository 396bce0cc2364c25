"""One job of a sweep: whatever becomes of it is written to its status file, by whichever launcher it was started."""

from __future__ import annotations

import io
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lgap_bench.cell.config import Cell
from lgap_bench.cell.dry import Missing
from lgap_bench.logger.base import Done, Logger
from lgap_bench.logger.pace import Pace
from lgap_bench.record import Record
from lgap_bench.runtime.errors import is_user_error, sentence
from lgap_bench.runtime.requeue import taken_away
from lgap_bench.runtime.signals import lost
from lgap_bench.runtime.worker import this_worker
from lgap_bench.sweep.status import (
    CHECKED,
    DONE,
    FAILED,
    INTERRUPTED,
    LACKING,
    PART,
    RECORDED,
    RUNNING,
    Status,
    SweepFolder,
    beating,
)


@dataclass(frozen=True)
class Outcome:
    """What a job hands to its launcher: how it ended, and why if it did not end well."""

    state: str
    sentence: str = ""


class StatusFile(Logger):
    """The job's own view of its status file; as a logger it hears how far the cell is."""

    EVERY = 2.0  # seconds between two writes of mere progress

    def __init__(self, folder: SweepFolder, number: int, overrides: Sequence[str]) -> None:
        held = folder.job(number)
        now = time.time()
        self.silent, self.pace = False, Pace()
        self.folder, self.written, self.lock = folder, now, threading.Lock()  # two threads write: this and the beat
        self.status = Status(number, list(overrides), RUNNING, began=now, beat=now, worker=this_worker().name)
        self.status = replace(self.status, attempt=1 + (held.attempt if held else 0))
        self._write()

    def update(self, **changes: Any) -> None:
        """Change the status and write it."""
        with self.lock:
            self.written = time.time()
            self.status = replace(self.status, **{"beat": self.written, **changes})
            self._write()

    def _write(self) -> None:
        """A full disk costs the status and not the cell."""
        try:
            self.folder.write(self.status)
        except OSError as error:
            if not self.silent:
                print(
                    f"lgap-bench: {self.folder.file(self.status.number)} cannot be written ({error.strerror}): the job goes on, its status is lost",
                    file=sys.stderr,
                )
            self.silent = True

    def ended(self, state: str, text: str = "") -> Outcome:
        """The job's last word."""
        self.update(state=state, sentence=text, doing="", left=None, ended=time.time())
        return Outcome(state, text)

    def started(self, cell: Cell, record: Record) -> None:
        """The cell is not answered from its record."""
        self.update(title=cell.title, record=record.folder.name, n=cell.n)

    def phase(self, text: str) -> None:
        """What goes on now."""
        self.update(doing=text)

    def step(self, name: str, k: int, n: int | None) -> None:
        """How far a chunk is, every other second."""
        text = self.pace.told(name, k, n)
        if time.time() - self.written > self.EVERY:
            self.update(doing=text)
        else:
            with self.lock:
                self.status = replace(self.status, doing=text)

    def chunk(self, done: Done) -> None:
        """How far the cell is."""
        robust = None if done.robust != done.robust else done.robust
        self.update(images=done.images, n=done.n, robust=robust, left=done.left, doing="")


def tracked(
    folder: Path, number: int, overrides: Sequence[str], work: Callable[[StatusFile], tuple[Record | None, str]]
) -> Outcome:
    """Do a job's work and write what came of it.

    `work` is given the logger that keeps the status file, and returns the cell's record, whole or waiting for other shards,
    and what was said of it.
    No error leaves here, so that the sweep goes on; an interruption does, once it is written down.
    """
    file = StatusFile(SweepFolder(folder), number, overrides)
    with beating(file.update):
        try:
            record, said = work(file)
        except KeyboardInterrupt as error:
            file.ended(INTERRUPTED, str(error) or "SIGINT")
            raise
        except SystemExit as left:
            if (word := taken_away(left)) is not None:
                file.ended(INTERRUPTED, word)
                raise
            return _failed(file, f"its code ends the process (exit {left.code}): raise an error instead")
        except Missing as error:
            lacks = [[lack.name, lack.part, lack.mend] for lack in error.lacks]
            file.status = replace(file.status, lacks=lacks)
            return file.ended(LACKING, str(error))
        except Exception as error:
            if (signal := lost()) is not None:
                file.ended(INTERRUPTED, str(signal) or "SIGINT")
                raise signal from error
            if (word := taken_away(error)) is not None:
                file.ended(INTERRUPTED, word)
                raise
            return _failed(file, sentence(error).removeprefix("lgap-bench: "), error)
    if record is None:
        return file.ended(CHECKED)
    measured = bool(file.status.record)  # only a cell that is measured tells its loggers
    file.status = replace(file.status, record=record.folder.name)
    if not record.complete:
        return file.ended(PART, said)
    return file.ended(DONE if measured else RECORDED)


def _failed(file: StatusFile, text: str, error: Exception | None = None) -> Outcome:
    """Write down and say why a job failed; a bug keeps its traceback beside the status file, and on stderr."""
    if error is not None and not is_user_error(error):
        kept = file.folder.file(file.status.number, ".txt")
        kept.write_text("".join(traceback.format_exception(error)))
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {text} (a bug: {kept})"
    print(
        f"lgap-bench: {text}  [job {file.status.number}: {' '.join(file.status.overrides)}]",
        file=sys.stderr,
        flush=True,
    )
    return file.ended(FAILED, text)


def silently(work: Callable[[], Any]) -> tuple[Any, str]:
    """What a job returns, and what it has printed: several processes' screens would run into one another."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        return work(), printed.getvalue()
