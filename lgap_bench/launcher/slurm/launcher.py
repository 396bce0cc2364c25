"""`hydra/launcher=slurm`: every job of a sweep is a job of SLURM's, most of them in an array. Without torch.

submitit writes the script, hands it to sbatch and queues a job again whose time is up. Waiting is our own, since
submitit's trusts `sacct` alone (where it is switched off, it waits for ever) and ends at the first job that failed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf, open_dict

from lgap_bench.launcher.base import SweepLauncher
from lgap_bench.launcher.slurm import earlier, queue, submit
from lgap_bench.launcher.slurm.settings import Settings
from lgap_bench.launcher.slurm.submit import Job, Refused
from lgap_bench.launcher.slurm.watch import Watch
from lgap_bench.sweep.job import Outcome
from lgap_bench.sweep.status import FAILED, SweepFolder

Task = tuple[int, tuple[Any, ...]]  # a job's number and its arguments, of which the first is its overrides


class CellFailed(Exception):
    """Raised in a job whose cell failed, after that was written down: SLURM then says FAILED and not COMPLETED."""


class SlurmLauncher(SweepLauncher):
    """Hands a sweep's jobs to SLURM, waits for all of them, and writes down those that died.

    The arguments are `Settings`'. The jobs outlive this process; a second call with the same words finds their records.
    """

    def __init__(self, **keys: Any) -> None:
        super().__init__()
        plain: dict[str, Any] = {
            key: OmegaConf.to_container(each) if OmegaConf.is_config(each) else each for key, each in keys.items()
        }
        self.settings = Settings(**plain)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; each one's outcome. Raises ValueError in one line if SLURM is not here or takes none of them."""
        from hydra.core.singleton import Singleton

        submit.submitit()
        folder = SweepFolder(Path(str(self.config.hydra.sweep.dir)))
        state = Singleton.get_state()
        tasks: list[Task] = [
            (number, (list(overrides), number, state))
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        watch = Watch(folder, queue.standings)
        try:
            held = self._earlier(folder, tasks, watch)
            self._submitted(folder, [task for task in tasks if task[0] not in held], watch)
            watch.wait()
            if late := {job.number for job in watch.unheard}:
                self._submitted(folder, [task for task in tasks if task[0] in late], watch)
                watch.wait()
        except KeyboardInterrupt:
            if watch.open:
                names = " ".join(sorted({key.partition("_")[0] for key in watch.open}))
                print(f"\nthe jobs go on in SLURM; to end them: scancel {names}", file=sys.stderr, flush=True)
            raise
        return [_returned(folder, number, arguments[0]) for number, arguments in tasks]

    def _earlier(self, folder: SweepFolder, tasks: Sequence[Task], watch: Watch) -> set[int]:
        """Watch what an earlier call with the same words has in SLURM; the numbers of these jobs."""
        found = earlier.waiting(folder, {number: arguments[0] for number, arguments in tasks})
        if found:
            print(f"sweep {folder.name}: {earlier.told(found)}", file=sys.stderr, flush=True)
            watch.add(found)
        return {job.number for job in found}

    def _submitted(self, folder: SweepFolder, tasks: Sequence[Task], watch: Watch) -> None:
        """Submit jobs, in as many arrays as it takes, and watch them."""
        for batch in submit.batches(tasks, self.settings.array_max) if tasks else ():
            taken = self._taken(batch, watch)
            earlier.keep(folder, taken, {number: arguments[0] for number, arguments in batch})
            print(f"sweep {folder.name}: {_told(taken)}, logs in {self.settings.folder}", file=sys.stderr, flush=True)

    def _taken(self, batch: list[Any], watch: Watch) -> list[Job]:
        """Submit an array, if need be after the earlier ones have made room."""
        try:
            taken = submit.submit(self.settings, self, batch)
        except Refused as refusal:
            if not watch.open:
                raise
            print(f"{refusal}; tried again when the jobs before have ended", file=sys.stderr, flush=True)
            watch.wait()
            taken = submit.submit(self.settings, self, batch)
        watch.add(taken)
        return taken

    def __call__(self, overrides: list[str], number: int, state: dict[type, Any]) -> Outcome | None:
        """In the job: compose its config and run it. Raises CellFailed if its cell failed."""
        import submitit
        from hydra.core.singleton import Singleton
        from hydra.core.utils import run_job, setup_globals

        Singleton.set_state(state)
        setup_globals()
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = submitit.JobEnvironment().job_id, number
            if config.threads is None and self.settings.cpus_per_task is not None:
                config.threads = self.settings.cpus_per_task  # torch would take every core of the node
        outcome = run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        ).return_value
        if outcome is not None and outcome.state == FAILED:
            raise CellFailed(f"job {number}: {outcome.sentence}")
        return outcome

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit queues again when the time is up: the same job, which goes on from its finished chunks."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def _told(jobs: Sequence[Job]) -> str:
    name = jobs[0].id.partition("_")[0]
    return f"1 job, {name} in SLURM" if len(jobs) == 1 else f"{len(jobs)} jobs, array {name} in SLURM"


def _returned(folder: SweepFolder, number: int, overrides: list[str]) -> JobReturn:
    """As Hydra's sweeper wants it: what the job's status file says."""
    held = folder.job(number)
    returned = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
    returned.return_value = Outcome(held.state, held.sentence) if held else None
    return returned
