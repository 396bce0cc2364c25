"""The child: makes W&B runs of what an evaluating process tells, sends them, and ends by itself.

    python -m lgap_bench.logger.wandb_child <outputs> <spool>

Started by `wandb_spool.Child`. It lives through a broken wandb by starting itself anew, and past its parent's end for as long as
the settings' `limit` allows; what it then has not sent, `lgap-bench sync` does.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from lgap_bench.logger import wandb_spool as spool_files
from lgap_bench.logger.wandb_run import KILLED, Run, of_record, of_table
from lgap_bench.logger.wandb_settings import Settings
from lgap_bench.record import Record
from lgap_bench.runtime import files

EVERY = 60.0  # seconds between two pictures of a cell that runs
LOOK = 5.0  # seconds between two looks at what is due
LONGEST_BUILD = 90  # seconds: wandb's own helper process can hang
RESTARTS = 2  # after that this environment's wandb is taken for broken
PAUSES = (5, 10, 20, 40)  # seconds before a run that was not taken is tried again, once the parent is gone
LATER = "measuring goes on, `lgap-bench sync` sends it later"


class Child:
    """What is built and sent, and when next."""

    def __init__(self, outputs: Path, spool: Path, restarts: int = 0) -> None:
        self.outputs, self.spool, self.restarts = outputs, spool, restarts
        self.alive, self.since = True, 0.0  # since when nothing was taken, once the parent is gone
        self.shown: dict[str, tuple[float, int]] = {}  # of cells that run: when they were built, with how many chunks
        self.failures: dict[str, tuple[int, float]] = {}  # of ended cells: attempts, and when the next one is due
        self.given_up: set[str] = set()
        self.told_user = False

    def listen(self, seconds: float) -> None:
        """Wait for the bell, at most so long; the end of the pipe is the parent's end."""
        if not self.alive:
            time.sleep(min(seconds, 1.0))
        elif select.select([0], [], [], seconds)[0] and not os.read(0, 65536):
            self.alive, self.since = False, time.monotonic()

    def round(self) -> bool:
        """Do what is due; whether anything is left to do."""
        left = False
        for file in sorted(self.spool.glob("*.json")):
            self.listen(0)  # before it is read: what the parent says last, it says before its end
            told = spool_files.entry(file)
            if told is None:
                continue
            settings = Settings.read(told["settings"])
            if told["state"] == "running" and self.alive:
                self._progress(told, settings)
                left = True
            elif self._unsettled(told, file):
                left = True
            elif self._due(told["id"], settings):
                done = self._end(told, settings)
                if done and spool_files.entry(file) == told:  # not told anew meanwhile
                    file.unlink()
                left = left or not done
            else:
                left = left or told["id"] in self.failures
        return left

    def _unsettled(self, told: Mapping[str, Any], file: Path) -> bool:
        """Whether a finished cell's picture and its comparison with others are still being made."""
        if told["kind"] == "table" or told["state"] != "finished" or not self.alive:
            return False
        record = Record(self.outputs / "records" / told["id"])
        return not record.settled and time.time() - file.stat().st_mtime < EVERY

    def _due(self, name: str, settings: Settings) -> bool:
        """Whether an ended cell is to be built and sent now; once the parent is gone, only within the limit."""
        tried, due = self.failures.get(name, (0, 0.0))
        late = not self.alive and time.monotonic() - self.since > settings.limit
        late = late and (tried > 0 or settings.mode == "online")  # what is only built is tried once, however late
        if late and name not in self.given_up:
            spool_files.note(self.outputs, f"{name}: given up, `lgap-bench sync` sends it later")
            self.failures.pop(name, None)
            self.given_up.add(name)
        return name not in self.given_up and time.monotonic() >= due

    def _progress(self, told: Mapping[str, Any], settings: Settings) -> None:
        """Show a cell that runs: at its start where somebody can look, then once a minute when there is something new."""
        name = told["id"]
        at, held = self.shown.get(name, (float("-inf") if settings.mode == "online" else time.monotonic(), -1))
        record = Record(self.outputs / "records" / name)
        chunks = len(list((record.folder / "chunks").glob("*.npz")))
        self.shown[name] = (at, held)
        if time.monotonic() - at >= EVERY and chunks != held:
            self.shown[name] = (time.monotonic(), chunks)
            self._make(told, settings, record, wait=0)

    def _end(self, told: Mapping[str, Any], settings: Settings) -> bool:
        """Build a cell that has ended, or a table, and send it; whether it is done with."""
        name = told["id"]
        told = {**told, "state": "failed", "error": KILLED} if told["state"] == "running" else told
        record = None if told["kind"] == "table" else Record(self.outputs / "records" / name)
        if self._make(told, settings, record, wait=settings.limit):
            return True
        attempts = self.failures.get(name, (0, 0.0))[0]
        pause = PAUSES[min(attempts, len(PAUSES) - 1)] if not self.alive else EVERY
        self.failures[name] = (attempts + 1, time.monotonic() + pause)
        return False

    def _make(self, told: Mapping[str, Any], settings: Settings, record: Record | None, wait: float) -> bool:
        """Build and, online, send; whether that worked."""
        from lgap_bench.logger import wandb_write as write

        name = told["id"]
        with write.alone(self.outputs, name, wait) as mine:
            if not mine:
                return False
            try:
                run = of_table(told, settings) if record is None else of_record(record, settings, told)
                made = self._build(run, settings)
                spool_files.note(self.outputs, f"{name}: built, {run.summary['state']}, {len(run.rows)} chunks")
                if settings.mode != "online":
                    return True
                page = write.send(made, settings.limit)
            except write.NotSent as error:
                self.trouble(name, str(error))
                return False
            except (OSError, ValueError) as error:
                self.trouble(name, files.one_line(error))
                return False
            self.since = time.monotonic()
            write.remove(self.outputs, name)
            if record is not None and record.complete:
                spool_files.mark_sent(self.outputs, name, spool_files.content_of(record), settings.project)
            spool_files.note(self.outputs, f"{name}: sent{f' to {page}' if page else ''}")
        return True

    def _build(self, run: Run, settings: Settings) -> Path:
        """The run's folder. Where wandb hangs or its helper is gone, this process starts anew: wandb does not recover."""
        from lgap_bench.logger import wandb_write as write

        signal.signal(signal.SIGALRM, lambda *_: self.again(f"wandb did not answer within {LONGEST_BUILD} s"))
        signal.alarm(LONGEST_BUILD)
        try:
            return write.build(run, settings, self.outputs)
        except (ConnectionError, BrokenPipeError) as error:
            self.again(f"wandb's helper process is gone ({type(error).__name__})")
        except (OSError, ValueError):
            raise
        except Exception as error:
            self.again(f"wandb failed ({type(error).__name__}: {error})")
        finally:
            signal.alarm(0)

    def trouble(self, name: str, reason: str) -> None:
        """Note what went wrong, and tell the user once."""
        spool_files.note(self.outputs, f"{name}: not sent: {reason}")
        if not self.told_user:
            self.told_user = True
            with suppress(OSError):
                files.write_text(self.spool / "said.txt", f"lgap-bench: W&B: {reason}: {LATER}")

    def again(self, reason: str) -> NoReturn:
        """Start this process anew, with the same pipe to its parent; the third time give up."""
        signal.alarm(0)
        end_children()
        if self.restarts >= RESTARTS:
            self.trouble("all", reason)
            os._exit(1)
        spool_files.note(self.outputs, f"starts anew: {reason}")
        os.environ.pop("WANDB_SERVICE", None)  # of the helper that is gone
        words = [str(self.outputs), self.spool.name, str(self.restarts + 1)]
        os.execv(sys.executable, [sys.executable, "-P", "-m", "lgap_bench.logger.wandb_child", *words])


def end_children() -> None:
    """End what this process has started: wandb's helper would stay, as its parent's number stays the same."""
    for status in Path("/proc").glob("[0-9]*/stat"):  # where there is none, the helper stays until the end
        with suppress(OSError, ValueError, IndexError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                os.kill(int(status.parent.name), signal.SIGKILL)


def main() -> None:
    """Serve one evaluating process until it is gone and all is sent or given up."""
    outputs, name, *rest = sys.argv[1:]
    with suppress(OSError):
        os.nice(10)  # the evaluation's cores are the evaluation's
    child = Child(Path(outputs), spool_files.spools(Path(outputs)) / name, int(rest[0]) if rest else 0)
    while True:
        left = child.round()
        if not child.alive and not left:
            break
        child.listen(LOOK if left else EVERY)
    if not list(child.spool.glob("*.json")):  # else it stays for `lgap-bench sync`
        shutil.rmtree(child.spool, ignore_errors=True)


if __name__ == "__main__":
    main()
