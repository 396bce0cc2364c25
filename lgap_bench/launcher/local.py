"""`hydra/launcher=local`: a sweep's jobs in several processes of this machine. Without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import open_dict

from lgap_bench.launcher.base import SweepLauncher
from lgap_bench.sweep.command import telling
from lgap_bench.sweep.status import SweepFolder


class LocalLauncher(SweepLauncher):
    """Processes that take one job after the other: the libraries are loaded once per process, not once per job.

    On a CPU each process has one thread (on small networks two processes do twice as much as two threads), on GPUs each
    has a GPU of its own. A process that dies takes its job with it, by name, and another one takes its place.

    Args:
        jobs: processes, or "auto": one per GPU, or as many as cores and free memory allow, and never more than jobs.
        memory_gb: main memory that a process may need; only `auto` looks at it.
    """

    def __init__(self, jobs: int | str = "auto", memory_gb: float = 2.5) -> None:
        super().__init__()
        if not (jobs == "auto" or (isinstance(jobs, int) and not isinstance(jobs, bool) and jobs > 0)):
            raise ValueError(f"hydra.launcher.jobs={jobs} is no number of processes: write a positive number, or auto")
        if isinstance(memory_gb, bool) or not isinstance(memory_gb, int | float) or not memory_gb > 0:
            raise ValueError(f"hydra.launcher.memory_gb={memory_gb} is not positive: write what a process needs, in GB")
        self.jobs, self.memory_gb = jobs, memory_gb

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; each one's outcome, also of those that died."""
        from lgap_bench.launcher.pool import Pool

        folder = SweepFolder(Path(str(self.config.hydra.sweep.dir)))
        gpus = [] if str(self.config.get("device")) == "cpu" else visible_gpus()
        count = min(self._count(gpus), len(job_overrides))
        pool = Pool(count, gpus, self.task_function, self.hydra_context)
        print(
            f"sweep {folder.name}: {len(job_overrides)} jobs in {count} {'process' if count == 1 else 'processes'}",
            file=sys.stderr,
        )
        progress = Progress(folder, len(job_overrides))
        tasks = [
            (number, partial(self._composed, number, list(overrides), quiet=count > 1, alone=not gpus))
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        outcomes = {}
        for number, outcome, printed in pool.run(tasks, progress.tick):
            if outcome is None:
                folder.mark(number, "killed", printed)
            elif printed:
                print(printed, end="", flush=True)
            outcomes[number] = outcome
            progress.ended(number)
        return [_returned(outcomes.get(number), list(job_overrides[number - initial_job_idx])) for number, _ in tasks]

    def _count(self, gpus: Sequence[str]) -> int:
        if self.jobs != "auto":
            return int(self.jobs)
        if gpus:
            return len(gpus)
        return max(1, min(len(os.sched_getaffinity(0)), int(free_memory_gb() / self.memory_gb)))

    def _composed(self, number: int, overrides: list[str], quiet: bool, alone: bool) -> Any:
        """A job's config. `quiet`: the launcher says how far the jobs are, in place of each job's progress lines."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            if alone and config.threads is None:
                config.threads = 1
            if quiet and config.get("logger"):
                config.logger.pop("console", None)
        return config


class Progress:
    """The launcher's lines: each job that ended, and at least once a minute what is going on."""

    EVERY = 55.0  # seconds; a look at the clock and a line later it is still less than a minute

    def __init__(self, folder: SweepFolder, count: int) -> None:
        self.folder, self.count, self.done = folder, count, 0
        self.words = telling(folder.jobs())
        self.began = self.told = time.monotonic()

    def ended(self, number: int) -> None:
        """A job's end, in one line."""
        self.done += 1
        status = self.folder.job(number)
        state = status.state if status else "ended"
        if state == "failed":  # the job has said so itself, with its reason
            return
        words = self.words.get(number, f"job {number}")
        self._say(f"{self.done}/{self.count} {state}: {words}")

    def tick(self) -> None:
        """Called often; says something where nothing was said for a minute."""
        if time.monotonic() - self.told < self.EVERY:
            return
        running = [job for job in self.folder.jobs() if job.state == "running"]
        shown = "; ".join(
            f"{job.title or f'job {job.number}'} {job.images}/{job.n} {job.doing}".rstrip() for job in running
        )
        self._say(f"{self.done}/{self.count} ended, at work: {shown}")

    def _say(self, text: str) -> None:
        self.told = time.monotonic()
        print(f"[{self.told - self.began:6.1f} s] {text}", file=sys.stderr, flush=True)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=60)
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(index) for index in range(len(lines))]


def free_memory_gb() -> float:
    """Main memory that is free for new processes, of the machine or of this process's share of it (cgroup), in GB."""
    found = []
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []:
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) / 1e6)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip() != "max":
        found.append((int(limit.read_text()) - int(used.read_text())) / 1e9)
    return min(found, default=float("inf"))


def _returned(outcome: Any, overrides: list[str]) -> JobReturn:
    """As Hydra's sweeper wants it; a job that died has no outcome, its status file says why."""
    returned = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
    returned.return_value = outcome
    return returned
