"""Status files: what became of each job of a sweep, known from files alone, whatever started the jobs. Without torch.

outputs/sweeps/<name>/   sweep.json         the words of the command, every job's overrides, whose process leads it
                         jobs/00003.json    one job: its state, how far it is, why it failed
                         jobs/00003.txt     the traceback of a job that met a bug

A file is written by its job, and by whoever learns that the job can write no more (a launcher that saw it die).
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lgap_bench.runtime.files import FULL
from lgap_bench.runtime.worker import read_worker

BEAT = 10.0  # seconds between two signs of life
SILENT_FOR = 90.0  # seconds without one, after which a job is taken for dead

SUBMITTED = "slurm.json"  # in a sweep's folder, the jobs that SLURM has taken: they outlive their launcher

WAITING, RUNNING = "waiting", "running"
DONE, RECORDED, CHECKED = "done", "recorded", "checked"  # measured; answered from a record; with dry=true looked at
LACKING = "lacking"  # looked at too, and something that it needs is not here
PART = "part"  # a shard is done, and its cell waits for others
FAILED, KILLED, INTERRUPTED = "failed", "killed", "interrupted"
GOOD, BAD = (DONE, RECORDED, CHECKED, PART), (FAILED, KILLED, INTERRUPTED)
LOOKED = (CHECKED, LACKING)


@dataclass(frozen=True)
class Status:
    """One job.

    Attributes:
        state: one of the words above.
        sentence: why it failed, was killed or interrupted; of a part, what its cell waits for.
        record: the id of the cell's record, once it is known.
        doing: what it does now, `step 12 of 40`.
        images, n, robust, left: as in `logger.base.Done`.
        lacks: with dry=true, what is missing: name, part, mend of each thing.
        attempt: how manieth start of this job.
        worker: the process that does it, as `runtime.worker` names it.
        began, beat, ended: seconds since 1970, by the job's own clock.
    """

    number: int
    overrides: list[str] = field(default_factory=list)
    state: str = WAITING
    sentence: str = ""
    title: str = ""
    record: str = ""
    doing: str = ""
    images: int = 0
    n: int = 0
    robust: float | None = None
    left: float | None = None
    lacks: list[list[str]] = field(default_factory=list)
    attempt: int = 0
    worker: str = ""
    began: float = 0.0
    beat: float = 0.0
    ended: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether the job's process still gives signs of life."""
        return living(self.worker, self.beat)

    def seen(self) -> Status:
        """The job as it is: one that says `running` and gives no sign of life was killed."""
        if self.state != RUNNING or self.alive:
            return self
        return replace(self, state=KILLED, sentence="its process ended without a word, or its machine was lost")


@dataclass(frozen=True)
class SweepFolder:
    """The files of one sweep."""

    path: Path

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.path.name

    @property
    def shared_name(self) -> str:
        """`<name>`, also of `<name>-2` and so on: the words' own name, whichever call it was."""
        return re.sub(r"(-[0-9a-f]{8})-\d+$", r"\1", self.name)

    def family(self) -> list[SweepFolder]:
        """The folders of all calls with the same words: `<name>`, `<name>-2`, ..., this one first."""
        others = (file.parent for file in self.path.parent.glob(f"{self.shared_name}*/sweep.json"))
        named = (each for each in others if re.fullmatch(rf"{re.escape(self.shared_name)}(-\d+)?", each.name))
        return [self, *(SweepFolder(each) for each in sorted(named) if each != self.path)]

    def announce(self, first: int, jobs: Sequence[Sequence[str]]) -> None:
        """Write down jobs before they start; `first` is the number of the first. What an earlier call left is reset."""
        head = self.head()
        known = [list(job) for job in head.get("jobs", [])][:first] + [list(job) for job in jobs]
        self.write_head({**head, "jobs": known})
        for number, overrides in enumerate(jobs, first):
            held = self.job(number)
            if held is None or not (held.state == RUNNING and held.alive):  # another call's job may be at it
                self.write(Status(number, list(overrides), attempt=held.attempt if held else 0))

    def head(self) -> dict[str, Any]:
        """What `sweep.json` says; nothing where it is missing or damaged."""
        return _read(self.path / "sweep.json")

    def write_head(self, content: Mapping[str, Any]) -> None:
        """Write `sweep.json`."""
        _write(self.path / "sweep.json", content)

    def job(self, number: int) -> Status | None:
        """One job's status, or None where nothing can be read."""
        held = _read(self.file(number))
        known = {each.name for each in fields(Status)}
        try:
            return Status(**{key: value for key, value in held.items() if key in known}) if held else None
        except TypeError:
            return None

    def jobs(self) -> list[Status]:
        """All jobs as they are, in order: those that were announced, and those that another sweeper has started."""
        announced = self.head().get("jobs", [])
        started = [int(file.stem) for file in self.path.glob("jobs/[0-9]*.json")]
        numbers = range(max([len(announced), *(number + 1 for number in started)], default=0))
        given = {number: list(job) for number, job in enumerate(announced)}
        return [(self.job(number) or Status(number, given.get(number, []))).seen() for number in numbers]

    def write(self, status: Status) -> None:
        """Put a job's status in place of what was there."""
        _write(self.file(status.number), asdict(status))

    def mark(self, number: int, state: str, sentence: str) -> None:
        """Say what became of a job that can say it no more; what it said itself at its end stays."""
        held = self.job(number) or Status(number)
        if held.state in (WAITING, RUNNING):
            self.write(replace(held, state=state, sentence=sentence, ended=time.time()))

    def file(self, number: int, suffix: str = ".json") -> Path:
        """A job's file."""
        return self.path / "jobs" / f"{number:05d}{suffix}"


def living(worker: str, beat: float) -> bool:
    """Whether a process gives signs of life: its last one is young and, where that can be told from here, it is there."""
    known = read_worker(worker)
    return not (known is not None and known.gone) and time.time() - beat < SILENT_FOR


@contextmanager
def beating(beat: Any) -> Iterator[None]:
    """Call `beat()` every ten seconds from a thread while the block runs. A beat that fails stops nothing."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(BEAT):
            try:
                beat()
            except OSError:  # a full disk, a network folder that is away: the next beat tries again
                continue

    thread = threading.Thread(target=loop, daemon=True, name="sign of life")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _read(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all; not forced to the disk, since it is written often and what it says can be found out again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        os.replace(part, file)
    except OSError as error:
        if error.errno in FULL:  # a failed write does not say which file it was
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise
    finally:
        part.unlink(missing_ok=True)
