"""Waiting for jobs until each has ended, and writing down what became of those that could not say so themselves."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from lgap_bench.launcher.slurm import queue
from lgap_bench.launcher.slurm.submit import Job
from lgap_bench.sweep.status import (
    BAD,
    FAILED,
    GOOD,
    INTERRUPTED,
    KILLED,
    RUNNING,
    WAITING,
    Status,
    SweepFolder,
)

LOOK = 1.0  # seconds between two looks at the files
ASK = 10.0  # seconds between two questions to SLURM: it answers many users
SPEAK = 50.0  # seconds of silence; with a question to SLURM that takes its time still below a minute
SURE = 8.0  # seconds for which a job has to be at its end before it is believed: one that is requeued passes by it
LATE = 20.0  # seconds that a file may need from a node to here
STALE = 15.0  # seconds after a job's last sign of life for which SLURM's word counts more than its status file

# Reasons to wait that go away only when somebody changes the cluster or the job; SLURM keeps such jobs for ever.
NEVER = (
    "AccountNotAllowed",
    "BadConstraints",
    "DependencyNeverSatisfied",
    "InvalidAccount",
    "InvalidQOS",
    "JobHeldAdmin",
    "JobHeldUser",
    "PartitionConfig",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "QOSNotAllowed",
    "launch failed requeued held",
)
WHY = {
    "CANCELLED": "somebody cancelled it (scancel)",
    "TIMEOUT": "its time limit was reached: raise hydra.launcher.timeout_min",
    "OUT_OF_MEMORY": "out of main memory: raise hydra.launcher.mem_gb",
    "NODE_FAIL": "its node was lost",
    "PREEMPTED": "another job took its place, and this partition does not queue it again",
    "DEADLINE": "its deadline passed",
    "BOOT_FAIL": "its node did not start",
    "FAILED": "its process was killed or could not start",
    queue.GONE: "it is in the queue no more, and it left no result",
}


class Watch:
    """The jobs of one launch."""

    def __init__(self, folder: SweepFolder, ask: Callable[[Sequence[str]], dict[str, queue.Standing]]) -> None:
        self.folder, self.ask = folder, ask
        self.open: dict[str, Job] = {}
        self.standings: dict[str, queue.Standing] = {}
        self.since: dict[str, float] = {}  # when a job was first seen at its end
        self.unheard: list[Job] = []  # an earlier call's, whose last word came before this call had announced its jobs
        self.silent = ""
        self.began = self.asked = time.monotonic()
        self.spoke, self.told = float("-inf"), ("", "")

    def add(self, jobs: Sequence[Job]) -> None:
        """Watch these too."""
        self.open |= {job.id: job for job in jobs}
        for job in jobs:
            self._held(job)

    def wait(self) -> None:
        """Return once every job has ended."""
        while self.open:
            self._files()
            if time.monotonic() - self.asked >= ASK and self.open:
                self._slurm()
            self._speak()
            if self.open:
                time.sleep(LOOK)
        self._speak()

    def _files(self) -> None:
        """Jobs whose Python has come to its end."""
        for folder in {job.result.parent for job in self.open.values()}:
            with suppress(OSError):
                os.listdir(folder)  # makes a network file system look again
        for job in [each for each in self.open.values() if each.result.exists()]:
            self._ended(job, None)

    def _slurm(self) -> None:
        """Jobs that SLURM has ended, or queued again."""
        try:
            self.standings |= self.ask(list(self.open))
            self.silent = ""
        except queue.Silent as silence:  # it is started again some time, and the jobs go on without it
            self.silent = str(silence)
        now = self.asked = time.monotonic()
        if self.silent:
            return
        for job in list(self.open.values()):
            standing = self.standings[job.id]
            if not standing.ended:
                self.since.pop(job.id, None)
                self._held(job)
                self._queued_again(job, standing)
            elif now - self.since.setdefault(job.id, now) >= (LATE if standing.state == "COMPLETED" else SURE):
                self._ended(job, standing)

    def _queued_again(self, job: Job, standing: queue.Standing) -> None:
        """A job that says it runs, and waits in the queue: it was taken away without a word."""
        held = self.folder.job(job.number)
        if standing.state == "PENDING" and held and held.state == RUNNING and time.time() - held.beat > STALE:
            self.folder.write(replace(held, state=INTERRUPTED, sentence="SLURM took it away and has queued it again"))

    def _ended(self, job: Job, standing: queue.Standing | None) -> None:
        """Take a job's last word, or say in its place what is known."""
        held = self._last_word(job)
        del self.open[job.id]
        if job.home is not None and standing is None and (held is None or held.state == WAITING):
            self.unheard.append(job)  # its end is a matter of seconds ago, and what it came to is in its record
            return
        # A job that was interrupted and queued again can be cancelled in the queue: then SLURM has the last word.
        final = (*GOOD, *BAD) if standing is None else (*GOOD, FAILED)
        if held is None or held.state not in final:
            sentence = _left(job) if standing is None else _why(standing.state, job)
            kept = held or Status(job.number)
            self.folder.write(replace(kept, state=KILLED, sentence=sentence, doing="", left=None, ended=time.time()))

    def _held(self, job: Job) -> Status | None:
        """The job's status; of another sweep's job as that sweep's folder has it, which is then told here too."""
        own = self.folder.job(job.number)
        if job.home is None or job.home.path == self.folder.path:
            return own
        held = job.home.job(job.number)
        if held is not None and held != own:
            self.folder.write(held)
        return held

    def _last_word(self, job: Job) -> Status | None:
        """The job's status once it is at its end; the file may come after the result's."""
        until = time.monotonic() + (LATE if job.result.exists() else 0)
        while True:
            held = self._held(job)
            if (held and held.state in (*GOOD, *BAD)) or time.monotonic() > until:
                return held
            time.sleep(LOOK / 4)

    def _speak(self) -> None:
        """A line when the number of ended jobs has changed or SLURM falls silent, and one a minute."""
        still = {job.number for job in self.open.values()}
        states = Counter(each.state for each in self.folder.jobs() if each.number not in still)
        # One that seems dead and is not at its end for SLURM waits for its next round.
        at = Counter(
            RUNNING if each.state == RUNNING else WAITING for each in self.folder.jobs() if each.number in still
        )
        ended = ", ".join(f"{states[state]} {state}" for state in (*GOOD, *BAD) if states[state])
        now, told = time.monotonic(), (ended, self.silent)
        if told == self.told and now - self.spoke < SPEAK:
            return
        self.told, self.spoke = told, now
        parts = [f"{ended or 'none ended'}, {at[RUNNING]} running, {at[WAITING]} waiting"]
        waiting = Counter(standing.reason for key in self.open if (standing := self._standing(key)).state == "PENDING")
        for reason, count in waiting.items():
            if reason != "None":
                parts.append(f"{count} wait: {reason}{', which may never end' if reason in NEVER else ''}")
        if self.silent:
            parts.append(f"SLURM does not answer ({self.silent}), the jobs go on")
        print(f"[{now - self.began:6.0f} s] {'; '.join(parts)}", file=sys.stderr, flush=True)

    def _standing(self, key: str) -> queue.Standing:
        return self.standings.get(key, queue.Standing("UNKNOWN"))


def _why(state: str, job: Job) -> str:
    """SLURM's verdict on a job that left no result; the same sentence for all jobs that met the same."""
    return f"SLURM says {state}: {WHY.get(state, 'it left no result')} (logs: {job.log.parent})"


def _left(job: Job) -> str:
    """Why a job's Python ended before its cell had begun: what it raised, by the last line of its traceback."""
    raised = ""
    with suppress(OSError, EOFError, pickle.UnpicklingError, ImportError, AttributeError):
        kind, value = pickle.loads(job.result.read_bytes())
        raised = str(value).strip().splitlines()[-1] if kind == "error" else ""
    return f"{raised or 'its process ended without a word'} (logs: {job.log.parent})"
