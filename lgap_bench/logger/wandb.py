"""The logger of Weights & Biases: it tells a process of its own, which makes the runs. wandb is never imported here."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lgap_bench.cell.config import Cell
from lgap_bench.logger.base import Done, Logger
from lgap_bench.logger.wandb_settings import Settings, settings
from lgap_bench.logger.wandb_spool import Child
from lgap_bench.record import Record
from lgap_bench.runtime import libraries
from lgap_bench.runtime.errors import is_user_error, sentence

OFTEN = 10.0  # seconds between two phases that are passed on
SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")
CHILDREN: dict[tuple[int, Path], Child] = {}  # one per process and outputs folder, however many cells it measures


class Wandb(Logger):
    """One run per cell, whose id is the record's.

    Args:
        keys: those of conf/logger/wandb.yaml, see `wandb_settings.Settings`; the user's WANDB_* variables win.

    Raises ValueError in one line for settings that W&B would refuse, and where its package is missing.
    """

    def __init__(
        self,
        mode: str = "online",
        project: str = "lgap-bench",
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] = (),
        paths: bool = False,
        host: bool = False,
        artifact: bool = True,
        rows: int = 1000,
        limit: float = 120,
        wait: float | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "mode": mode,
            "project": project,
            "entity": entity,
            "group": group,
            "job_type": job_type,
        }
        given |= {"tags": tags, "paths": paths, "host": host, "artifact": artifact, "rows": rows}
        self.settings = settings({**given, "limit": limit, "wait": wait})
        if self.settings.mode != "disabled":
            libraries.require("wandb", "logger=wandb")
        self.child: Child | None = None
        self.entry: dict[str, Any] = {}
        self.told = 0.0

    def started(self, cell: Cell, record: Record) -> None:
        """A run begins: its config."""
        if self.settings.mode == "disabled":
            return
        self.child = child(cell.outputs, self.settings)
        self.entry = {
            "kind": "cell",
            "id": record.folder.name,
            "state": "running",
            "settings": self.settings.plain(),
            "config": cell.plain(),
            "slurm": {key: os.environ[key] for key in SLURM if key in os.environ},
            "host": socket.gethostname() if self.settings.host else None,
            "began": time.time(),
        }
        self._tell()

    def phase(self, text: str) -> None:
        """What goes on outside the chunks: shown with the run, every ten seconds at most."""
        if time.monotonic() - self.told > OFTEN:
            self._tell(phase=text)

    def chunk(self, done: Done) -> None:
        """The child finds the chunk in the record; here its own line to the user is passed on."""
        self._say()

    def finished(self, record: Record) -> None:
        """The record is whole."""
        self._tell(state="finished")

    def failed(self, error: BaseException) -> None:
        """The run ends as failed, with the error's sentence."""
        known = sentence(error).removeprefix("lgap-bench: ") if is_user_error(error) else ""
        text = known or " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        self._tell(state="failed", error=text)

    def _tell(self, **news: Any) -> None:
        if self.child is not None and self.entry:
            self.entry |= news
            self.told = time.monotonic()
            self.child.tell(self.entry)
            self._say()

    def _say(self) -> None:
        if self.child is not None and (text := self.child.said()) is not None:
            print(text, file=sys.stderr, flush=True)


def child(outputs: Path, held: Settings) -> Child:
    """The child of this process for an outputs folder; started by what it is told first."""
    key = (os.getpid(), outputs.resolve())
    if key not in CHILDREN:
        CHILDREN[key] = Child(outputs)
        atexit.register(close, key, held.patience)
    return CHILDREN[key]


def close(key: tuple[int, Path], wait: float) -> None:
    """Say to a child that this process ends, and wait for it no longer than that; what it has to say is printed."""
    if key[0] != os.getpid() or key not in CHILDREN:  # a fork has inherited the entry, but not the child
        return
    held = CHILDREN.pop(key)
    done = held.close(wait)
    if (text := held.said()) is not None:
        print(text, file=sys.stderr, flush=True)
    elif not done and wait:
        print(
            "lgap-bench: W&B is still at it: if it is cut off, `lgap-bench sync` sends the runs later", file=sys.stderr
        )


def send_table(
    outputs: Path,
    name: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    held: Settings | None,
    show: Callable[[object], str],
) -> None:
    """A run for a whole sweep: a paper's table, published beside measured. Returns at once; the child sends it.

    Args:
        name: of the sweep; the run's id is `table-<name>`, letters that W&B does not take become `-`.
        columns, rows: of a report's table.
        held: as `wandb_settings.chosen(cfg.logger)` gives them; None does nothing.
        show: words a cell that is no plain number or text, an upper bound for example: `report.page.shown`.
    """
    if held is None or held.mode == "disabled":
        return
    ident = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)[:100]
    cells = [[_cell(row.get(column), show) for column in columns] for row in rows]
    entry = {"kind": "table", "id": f"table-{ident}", "name": name, "columns": list(columns), "rows": cells}
    child(outputs, held).tell({**entry, "state": "finished", "settings": held.plain()})


def _cell(value: object, show: Callable[[object], str]) -> object:
    plain = value is None or type(value) in (bool, int, float, str)  # exactly: AtMost is a float, and more
    return value if plain else show(value)
