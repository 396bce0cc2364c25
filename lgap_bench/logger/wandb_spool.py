"""What the evaluating process tells of its cells: small files that another process, the child, makes W&B runs from.

<outputs>/wandb/spool/<process>/<id>.json   a cell: its config, settings, state; gone once W&B has the finished run
                                said.txt    one line from the child to the user, once
                sent/<id>.json              what of a record W&B has
                log.txt                     what the child did, with times
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import lgap_bench
from lgap_bench.record import Record
from lgap_bench.runtime import files

RESTARTS = 2  # of a child that has died: it is left for dead after that
OURS = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_DISABLED")  # not for the child's runs
FOLDERS = ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR", "WANDB_ARTIFACT_DIR")


def work(outputs: Path) -> Path:
    """The folder that holds all of it."""
    return outputs.resolve() / "wandb"


def spools(outputs: Path) -> Path:
    """The folder of every process's spool."""
    return work(outputs) / "spool"


def entry(file: Path) -> dict[str, Any] | None:
    """A cell or table that was told; None where the file is gone, as another process has just finished with it."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found


def entries(spool: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The cells and tables told in a spool folder."""
    for file in sorted(spool.glob("*.json")):
        if (found := entry(file)) is not None:
            yield file, found


def content_of(record: Record) -> dict[str, Any]:
    """What changes when a finished record changes: its numbers, and what others found to be lower."""
    return {"summary_id": record.summary().get("summary_id"), "lower": record.lower()}


def was_sent(outputs: Path, name: str, content: Mapping[str, Any]) -> bool:
    """Whether W&B has a run of exactly this content."""
    try:
        held = json.loads((work(outputs) / "sent" / f"{name}.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(held.get("content") == content)


def mark_sent(outputs: Path, name: str, content: Mapping[str, Any], project: str) -> None:
    """Keep that W&B has a run of this content."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    files.write_json(work(outputs) / "sent" / f"{name}.json", {"content": content, "project": project, "at": at})


def note(outputs: Path, text: str) -> None:
    """A line in the log; where even that cannot be written, nothing."""
    with suppress(OSError), (work(outputs) / "log.txt").open("a") as log:
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {' '.join(text.split())}\n")


def environment(outputs: Path) -> dict[str, str]:
    """The user's own environment, but quiet, offline, and with all that W&B keeps below outputs instead of the home folder."""
    kept = {key: value for key, value in os.environ.items() if key not in OURS}
    kept |= {key: str(Path(kept[key]).absolute()) for key in FOLDERS if kept.get(key)}  # the child is at home elsewhere
    folder = work(outputs)
    kept = {"WANDB_CACHE_DIR": str(folder / "cache"), "WANDB_DATA_DIR": str(folder / "data"), **kept}
    kept = {"WANDB_ERROR_REPORTING": "false", **kept}  # its telemetry, which also waits for a server at the end
    if not (Path.home() / ".config" / "wandb").exists():  # where it exists, it may name the user's server
        kept = {"WANDB_CONFIG_DIR": str(folder / "config"), **kept}
    root = Path(lgap_bench.__file__).parents[1]
    paths = [] if root.name.endswith("-packages") else [str(root)]  # found anyhow, and must not precede Python's own
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    return {**kept, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "PYTHONPATH": os.pathsep.join(paths)}


class Child:
    """The evaluating side of the child: started with the first cell, told by files, never waited for.

    A bell, one byte through a pipe, says that there is a new file; the pipe's end says that this process is gone, however
    it died.
    """

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs.resolve()
        self.spool = spools(outputs) / uuid.uuid4().hex[:12]
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def tell(self, entry: Mapping[str, Any]) -> None:
        """Hand over what is known of a cell or table, `entry["id"]`. Raises OSError where it cannot be written."""
        files.write_json(self.spool / f"{entry['id']}.json", entry)
        if self.process is None or self.process.poll() is not None:
            if self.starts > RESTARTS:
                raise OSError(f"its process ended {self.starts} times, see {work(self.outputs) / 'log.txt'}")
            self._start()
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):  # full (it will look anyway), or closed: the next call starts another
                os.write(self.process.stdin.fileno(), b".")

    def _start(self) -> None:
        self.starts += 1
        command = [sys.executable, "-P", "-m", "lgap_bench.logger.wandb_child", str(self.outputs), self.spool.name]
        with (work(self.outputs) / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=work(self.outputs),
                env=environment(self.outputs),
                start_new_session=True,  # a Ctrl-C or hang-up is the evaluation's, not the child's
                bufsize=0,
            )
        assert self.process.stdin is not None
        os.set_blocking(self.process.stdin.fileno(), False)

    def said(self) -> str | None:
        """The child's line to the user, once."""
        file = self.spool / "said.txt"
        try:
            text = file.read_text()
            file.unlink()
        except OSError:
            return None
        return text

    def close(self, wait: float) -> bool:
        """Say that this process ends; True if the child was done within `wait` seconds. It goes on by itself if not."""
        if self.process is None or self.process.stdin is None:
            return True
        with suppress(OSError):
            for file, told in entries(self.spool):
                if told["state"] == "running":  # an end in order: other processes go on with this cell's chunks
                    files.write_json(file, {**told, "state": "waiting"})
            self.process.stdin.close()
        try:
            self.process.wait(wait)
        except subprocess.TimeoutExpired:
            return False
        return True
