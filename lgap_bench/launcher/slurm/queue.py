"""What SLURM says of jobs: `squeue` first, which every cluster has, then `sacct`, which only some have."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# States after which a job does not come back by itself.
ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)
GONE = "GONE"  # neither in the queue nor in the books
MAX_ARRAY = 1001  # SLURM's own default of MaxArraySize
PATIENCE = 60  # seconds that one question may take


class Silent(Exception):
    """The controller does not answer; the text is SLURM's."""


@dataclass(frozen=True)
class Standing:
    """Where a job stands.

    Attributes:
        state: SLURM's word (PENDING, RUNNING, NODE_FAIL, ...), or `GONE`.
        reason: why it waits, in SLURM's words (Resources, Priority, ...), or "None".
    """

    state: str
    reason: str = "None"

    @property
    def ended(self) -> bool:
        """Whether it does not come back by itself."""
        return self.state in ENDED or self.state == GONE


def standings(ids: Iterable[str]) -> dict[str, Standing]:
    """Where each of these jobs stands (`12`, or `12_3` for a job of an array). Raises Silent if nobody answers."""
    wanted = list(ids)
    parents = sorted({number.partition("_")[0] for number in wanted})
    found = {number: standing for number, standing in _queue(parents).items() if number in set(wanted)}
    if unknown := [number for number in wanted if number not in found]:
        books = _books(sorted({number.partition("_")[0] for number in unknown}))
        found |= {number: books.get(number, Standing(GONE)) for number in unknown}
    return found


def max_array() -> int:
    """The number of jobs that one array may have here (MaxArraySize)."""
    done = _ask("scontrol", "show", "config")
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return int(size[1]) if size and int(size[1]) > 0 else MAX_ARRAY


def _queue(parents: Sequence[str]) -> dict[str, Standing]:
    """Jobs that run, wait, or ended within the last minutes (MinJobAge)."""
    which = ["--array", "--states=all", f"--jobs={','.join(parents)}"]
    done = _ask("squeue", "--noheader", *which, "--format=%i|%T|%r")
    if done.returncode and "Invalid job id" not in done.stderr:  # one that is forgotten is no silence
        raise Silent(words(done.stderr) or f"squeue ended with {done.returncode}")
    rows = (line.split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2)
    return {number.strip(): Standing(state, reason.strip()) for number, state, reason in rows}


def _books(parents: Sequence[str]) -> dict[str, Standing]:
    """Jobs that ended longer ago; none on a cluster without accounting."""
    done = _ask(
        "sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(parents)}", "--format=JobID,State"
    )
    rows = (line.split("|", 1) for line in done.stdout.splitlines() if "|" in line)
    return {number: Standing(state.split()[0]) for number, state in rows if state}  # "CANCELLED by 1000"


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (subprocess.TimeoutExpired, OSError) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def words(text: str) -> str:
    """SLURM's own words in one line, without the names of its programs."""
    lines = (
        re.sub(r"^(sbatch: |squeue: |srun: |slurm_load_jobs )(error|fatal): ", "", line) for line in text.splitlines()
    )
    return "; ".join(line.strip() for line in lines if line.strip())
