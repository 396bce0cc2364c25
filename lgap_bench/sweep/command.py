"""A sweep from its command's words to its last lines: its name, its folder, what became of every job, the exit code."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from lgap_bench.cell.form import outputs_folder
from lgap_bench.runtime.files import FULL, writable
from lgap_bench.runtime.worker import this_worker
from lgap_bench.sweep.status import (
    BAD,
    CHECKED,
    DONE,
    FAILED,
    GOOD,
    INTERRUPTED,
    KILLED,
    LACKING,
    LOOKED,
    PART,
    RECORDED,
    RUNNING,
    WAITING,
    Status,
    SweepFolder,
    beating,
    living,
)

SWEEPING = ("-m", "--multirun", "hydra.mode=MULTIRUN")
# Words that only ask about the configuration. `-cd` (more configs), `-cn` and `-cp` are none of them.
ANSWERS = re.compile(r"(--(cfg|info|help|hydra-help)(=.*)?|-c(job|hydra|all)?|-i.*|-h|-sc|--shell-completion)$")
UNTOLD = (
    "hydra/",
    "hydra.launcher",
    "hydra.sweep.",
    "hydra.mode",
    "logger",
    "outputs=",
    "+logger",
)  # they name no cell
SHOWN = 8  # jobs that are listed below one sentence
COUNTED = {  # in the order of the last line
    DONE: "measured", RECORDED: "from records", CHECKED: "checked", LACKING: "lack something", PART: "shards that wait for others", FAILED: "failed", KILLED: "killed",
    INTERRUPTED: "interrupted", RUNNING: "still running", WAITING: "not started",
}  # fmt: skip


def is_sweep(words: Sequence[str]) -> bool:
    """Whether these words start a sweep, and not one of Hydra's answers about the configuration."""
    return bool(set(SWEEPING) & set(words)) and not any(ANSWERS.match(word) for word in words)


def check_alone(words: Sequence[str]) -> None:
    """Raise ValueError for a launcher where there is no sweep: the cell would be measured here, on a login node perhaps."""
    named = [word for word in words if word.startswith("hydra/launcher=") and word != "hydra/launcher=basic"]
    if named:
        raise ValueError(f"{named[-1]} without -m: a launcher starts the jobs of a sweep, write -m, also for one cell")


def sweep(
    words: list[str], app: Callable[[], object], label: str = "", tables: Sequence[str] = ()
) -> tuple[SweepFolder, int]:
    """Run a sweep through the Hydra application and say what became of it, also where it is interrupted.

    `tables` are the items of a paper that it was started for. Returns its folder and the exit code. Raises ValueError if no cell matched, and what Hydra refuses before a job begins.
    """
    folder = begin(words, label)
    # argparse takes the keys in one piece: the flag goes before them.
    flags = [word for word in words if word in ("-m", "--multirun")]
    keys = [word for word in words if word not in flags]
    sys.argv[1:] = [*flags, *keys, f"hydra.sweep.dir='{folder.path}'"]
    try:
        with led(folder):
            app()
    except KeyboardInterrupt:
        end(folder, words)
        raise
    except BaseException as error:
        if not any(job.attempt for job in folder.jobs()):  # refused before anything began
            discard(folder)
        if isinstance(error, OSError) and error.errno in FULL and not error.filename:  # Hydra's own multirun.yaml
            raise OSError(error.errno, error.strerror, str(folder.path)) from error
        raise
    code = end(folder, words)
    if folder.head().get("loggers", {}).get("wandb"):
        from lgap_bench.sweep.wandb_table import send  # here: few sweeps need it

        send(folder, tables)
    return folder, code


def begin(words: Sequence[str], label: str = "") -> SweepFolder:
    """The sweep's folder, named after its cells: the same words come back to the same folder.

    A folder that a living process leads is left to it, and the name gets a number.
    """
    if any(word.startswith(("hydra.sweep.dir=", "hydra.sweep.subdir=")) for word in words):
        raise ValueError(
            "hydra.sweep.dir=...: a sweep is named after its cells, so that the same words find it again: choose a folder with outputs=..."
        )
    base = outputs_of(words) / "sweeps"
    writable(base)
    name, again = sweep_name(words, label), 1
    folder = SweepFolder(base / name)
    while is_led(folder):
        again += 1
        folder = SweepFolder(base / f"{name}-{again}")
    folder.write_head(
        {"words": list(words), "jobs": [], "began": time.time(), "beat": time.time(), "worker": this_worker().name}
    )
    return folder


def outputs_of(words: Sequence[str]) -> Path:
    """The outputs folder that these words mean."""
    given = [word.partition("=")[2] for word in words if word.startswith("outputs=")]
    return outputs_folder(given[-1] if given else "outputs")


def sweep_name(words: Sequence[str], label: str = "") -> str:
    """A label, by default from a few of the words, and a hash of all that say which cells are meant."""
    telling = sorted(word for word in words if not word.startswith(("-", *UNTOLD)))
    digest = hashlib.sha256("\n".join(telling).encode()).hexdigest()[:8]
    named = [word for word in telling if word.lstrip("+").startswith(("experiment", "purifier="))]
    first = named[0].lstrip("+").removeprefix("experiment").lstrip("/=").removeprefix("purifier=") if named else "sweep"
    folder, glob, _ = first.partition("=")  # +experiment/lgap/table1=glob(*)
    common = folder if glob else os.path.commonpath([os.path.dirname(each) for each in first.split(",")])
    label = re.sub(r"[^a-z0-9]+", "-", (label or common or first).lower()).strip("-")[:40].strip("-")
    return f"{label or 'sweep'}-{digest}"


def is_led(folder: SweepFolder) -> bool:
    """Whether another living process leads this sweep."""
    head = folder.head()
    if not head or head.get("ended") or head.get("worker") == this_worker().name:
        return False
    return living(str(head.get("worker", "")), float(head.get("beat", 0)))


@contextmanager
def led(folder: SweepFolder) -> Iterator[None]:
    """Lead the sweep while the block runs: another call with the same words sees that it is led."""
    with beating(lambda: folder.write_head({**folder.head(), "beat": time.time()})):
        try:
            yield
        finally:
            with suppress(OSError):  # a full disk: what the jobs came to is told all the same
                folder.write_head({**folder.head(), "ended": time.time()})


def end(folder: SweepFolder, words: Sequence[str]) -> int:
    """Say what became of the sweep; the exit code: 1 if any cell failed, was killed or never started.

    Raises ValueError if no cell matched.
    """
    jobs = with_shards(folder)
    if not jobs:
        discard(folder)
        raise ValueError(
            f"{' '.join(words)}: no cell matches, so nothing was measured: glob(*) finds the files of one folder of conf/, is its name right?"
        )
    sys.stdout.flush()
    print("\n".join(told(folder.name, jobs)), file=sys.stderr, flush=True)
    if all(job.state in LOOKED for job in jobs):  # nothing was measured
        from lgap_bench.sweep.planned import known_sum  # here: it brings torch

        print("\n".join(known_sum([job.overrides for job in jobs])), file=sys.stderr, flush=True)
        discard(folder)
    return int(any(job.state not in GOOD for job in jobs))


def with_shards(folder: SweepFolder) -> list[Status]:
    """The sweep's jobs as they are; a shard whose cell has become whole since is done."""
    whole = folder.path.parent.parent / "records"
    jobs = folder.jobs()
    return [
        replace(job, state=DONE, sentence="")
        if job.state == PART and (whole / job.record / "summary.json").exists()
        else job
        for job in jobs
    ]


def discard(folder: SweepFolder) -> None:
    """Remove the folder of a sweep that started nothing."""
    for file in [*folder.path.glob("jobs/*"), *folder.path.glob("*.*")]:
        file.unlink(missing_ok=True)
    for each in (folder.path / "jobs", folder.path, folder.path.parent):
        try:
            each.rmdir()
        except OSError:  # not empty, or not there
            continue


def told(name: str, jobs: Sequence[Status]) -> list[str]:
    """The sweep in a few lines: how many of each kind, then each failure once with the jobs that met it."""
    count = Counter(job.state for job in jobs)
    lines = [
        f"sweep {name}: {len(jobs)} {'cell' if len(jobs) == 1 else 'cells'}: "
        + ", ".join(f"{count[state]} {word}" for state, word in COUNTED.items() if count[state])
    ]
    words = telling(jobs)
    sentences: dict[tuple[str, str], list[Status]] = {}
    for job in jobs:
        if job.state in BAD:
            sentences.setdefault((job.state, job.sentence), []).append(job)
    latest = {job.record: job for job in sorted(jobs, key=lambda job: job.ended) if job.state == PART}
    lines += [f"  {job.title or job.record}: {job.sentence}" for job in latest.values()]
    for (state, text), members in sentences.items():
        lines.append(f"  {COUNTED[state]}: {text or 'no reason is known'}")
        lines += [f"    job {job.number}: {words[job.number]}" for job in members[:SHOWN]]
        if len(members) > SHOWN:
            lines.append(f"    and {len(members) - SHOWN} more")
    lines += lacking(jobs)
    if any(job.state not in (*GOOD, LACKING) for job in jobs):
        lines.append("  the same command again measures what is missing")
    return lines


def lacking(jobs: Sequence[Status]) -> list[str]:
    """What the cells that were looked at lack, each thing once, with whose it is and for how many cells."""
    found: dict[tuple[str, str], list[str]] = {}
    for job in jobs:
        for name, part, mend in job.lacks if job.state == LACKING else ():
            found.setdefault((name, mend), []).append(part)
    return [
        f"  missing: {name}, for {len(parts)} {'cell' if len(parts) == 1 else 'cells'} ({', '.join(sorted(set(parts)))}): {mend}"
        for (name, mend), parts in found.items()
    ]


def telling(jobs: Sequence[Status]) -> dict[int, str]:
    """Of each job the overrides that tell it from the others."""
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    return {
        job.number: " ".join(word for word in job.overrides if word not in shared) or " ".join(job.overrides)
        for job in jobs
    }
