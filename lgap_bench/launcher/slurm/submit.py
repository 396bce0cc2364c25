"""Jobs on their way to SLURM: arrays no larger than the cluster takes, and a refusal in SLURM's own words."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgap_bench.launcher.slurm import queue
from lgap_bench.launcher.slurm.settings import Settings
from lgap_bench.sweep.status import SweepFolder

KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")  # of the environment's SLURM_*: they say which cluster, not which job


class Refused(ValueError):
    """The cluster did not take the jobs."""


@dataclass(frozen=True)
class Job:
    """A job that SLURM has taken.

    Attributes:
        id: SLURM's, `12` or `12_3`.
        number: the job's place in the sweep.
        result: the file that exists once the job's Python has come to its end.
        log: what it printed to stderr.
        home: the sweep whose status file it writes, of a job that an earlier call has submitted; None for this call's own.
    """

    id: str
    number: int
    result: Path
    log: Path
    home: SweepFolder | None = None


def submitit() -> Any:
    """The library. Raises ValueError if it, or SLURM, is not here."""
    try:
        import submitit as library
    except ImportError:
        raise ValueError("hydra/launcher=slurm needs submitit: pip install 'lgap-bench[slurm]'") from None
    if lacking := [name for name in ("sbatch", "srun", "squeue", "scontrol") if shutil.which(name) is None]:
        raise ValueError(
            f"hydra/launcher=slurm needs SLURM's commands, and {', '.join(lacking)} is not on PATH: call it on a login "
            "node, or use hydra/launcher=local"
        )
    return library


def batches(tasks: Sequence[Any], most: int | None) -> list[list[Any]]:
    """The tasks in runs of `most`, or of as many as the cluster takes in one array."""
    size = most if most is not None else queue.max_array()
    return [list(tasks[start : start + size]) for start in range(0, len(tasks), size)]


def submit(settings: Settings, call: Callable[..., Any], tasks: Sequence[tuple[int, tuple[Any, ...]]]) -> list[Job]:
    """Hand `call(*arguments)` of each task to SLURM, several as one array. A task is a job's number and its arguments.

    Raises Refused with what sbatch said.
    """
    library = submitit()
    executor = library.SlurmExecutor(settings.folder, max_num_timeout=settings.max_num_timeout)
    executor.update_parameters(**settings.parameters())
    said = io.StringIO()  # submitit prints what sbatch said, and raises it too
    try:
        with _environment(), redirect_stderr(said):
            taken = executor.map_array(call, *zip(*(arguments for _, arguments in tasks), strict=True))
    except (library.core.utils.FailedJobError, library.core.utils.FailedSubmissionError) as error:
        raise Refused(_refusal(str(error) or said.getvalue())) from None
    return [
        Job(str(job.job_id), number, job.paths.result_pickle, job.paths.stderr)
        for job, (number, _) in zip(taken, tasks, strict=True)
    ]


def _refusal(text: str) -> str:
    said = queue.words(text) or "sbatch said nothing"
    mend = "hydra.launcher.partition, account, qos and the like say what is asked for, `sinfo` what there is"
    if "contact" in said and "controller" in said:
        mend = "its controller is down or cannot be reached from here, try again later"
    elif "Limit" in said:
        mend = "you may not have so many jobs at once: set hydra.launcher.array_max lower, or wait for others to end"
    return f"SLURM did not take the jobs ({said}): {mend}"


@contextmanager
def _environment() -> Iterator[None]:
    """While the block runs, this process's environment is one that jobs may inherit.

    Not the address of this process's W&B service, which does not outlive it; and, where this process is itself a job
    (salloc), not that job's description, which srun would take for the new one's.
    """
    foreign = [key for key in os.environ if key.startswith(("SLURM_", "SRUN_")) and key not in KEPT]
    held = {key: os.environ.pop(key) for key in ("WANDB_SERVICE", *foreign) if key in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)
