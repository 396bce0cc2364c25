"""Jobs that an earlier call with the same words has handed to SLURM and that are still there: waited for, not submitted again.

outputs/sweeps/<name>/slurm.json   the jobs that SLURM took for a sweep: their ids, places, words and files
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lgap_bench.launcher.slurm import queue
from lgap_bench.launcher.slurm.submit import Job
from lgap_bench.runtime.files import write_text
from lgap_bench.sweep.status import SUBMITTED, SweepFolder


def keep(folder: SweepFolder, jobs: Sequence[Job], words: Mapping[int, Sequence[str]]) -> None:
    """Write down jobs that SLURM has taken, in place of earlier ones that did the same; a full disk costs this note alone."""
    rows: list[dict[str, Any]] = [
        {
            "id": job.id,
            "number": job.number,
            "words": list(words[job.number]),
            "result": str(job.result),
            "log": str(job.log),
        }
        for job in jobs
    ]
    new = {(row["number"], *sorted(row["words"])) for row in rows}
    older = [row for row in _rows(folder) if (row["number"], *sorted(row["words"])) not in new]
    with suppress(OSError):
        write_text(folder.path / SUBMITTED, json.dumps([*older, *rows], indent=1) + "\n")


def waiting(folder: SweepFolder, words: Mapping[int, Sequence[str]]) -> list[Job]:
    """The jobs in SLURM's queue, or running there, that do what one of this sweep's does; one for each at most.

    `words` are every job's overrides. A job counts only where all of them are the same, the logger's too, since it was
    pickled with them; and its place, by which its status file is named.
    """
    found: dict[str, Job] = {}
    for home in folder.family():
        for row in _rows(home):
            number, result = row["number"], Path(row["result"])
            if sorted(row["words"]) == sorted(words.get(number, ())) and not result.exists():
                found[row["id"]] = Job(row["id"], number, result, Path(row["log"]), home)
    if not found:
        return []
    try:
        standings = queue.standings(found)
    except queue.Silent:  # sbatch will say so in its own words
        return []
    by_number = {job.number: job for job in found.values() if not standings[job.id].ended}
    return [by_number[number] for number in sorted(by_number)]


def told(jobs: Sequence[Job]) -> str:
    """One line for whoever has typed the command once more."""
    count = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
    names = " ".join(sorted({job.id.partition("_")[0] for job in jobs}))
    be = "is" if len(jobs) == 1 else "are"
    return (
        f"{count} of an earlier call {be} in SLURM already and not submitted again; to have them anew: scancel {names}"
    )


def _rows(folder: SweepFolder) -> list[dict[str, Any]]:
    """What was written down; nothing where it is missing or damaged."""
    try:
        held = json.loads((folder.path / SUBMITTED).read_text())
    except (OSError, ValueError):
        return []
    kinds = {"id": str, "number": int, "words": list, "result": str, "log": str}
    rows = (row for row in (held if isinstance(held, list) else ()) if isinstance(row, dict))
    return [row for row in rows if all(isinstance(row.get(key), kind) for key, kind in kinds.items())]
