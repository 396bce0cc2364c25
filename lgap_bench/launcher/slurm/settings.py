"""The keys of conf/hydra/launcher/slurm.yaml: checked, and in the words that sbatch knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WHOLE = ("timeout_min", "signal_delay_s", "array_parallelism")  # positive numbers
WHOLE_OR_NULL = ("cpus_per_task", "gpus_per_node", "array_max")
PASSED = ("partition", "account", "qos", "constraint", "exclude", "comment", "gres", "cpus_per_task", "gpus_per_node")


@dataclass(frozen=True)
class Settings:
    """What one job asks of the cluster, and how many of them there may be at once.

    Attributes:
        folder: where the jobs' scripts and logs lie; every node has to see it.
        timeout_min: time limit of a job in minutes.
        signal_delay_s: seconds before the time limit at which a job is told to stop and queue itself again.
        max_num_timeout: how often a job may do so.
        array_parallelism: jobs of an array that run at once.
        array_max: jobs of one array, None for what the cluster allows.
        mem_gb: main memory of a job in GB.
        setup: lines of shell before the job, e.g. `module load cuda`.
        additional_parameters: any other option of sbatch, `{mail-type: FAIL}`.
    """

    folder: str
    timeout_min: int
    signal_delay_s: int
    max_num_timeout: int
    array_parallelism: int
    array_max: int | None = None
    name: str = "lgap-bench"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    comment: str | None = None
    gres: str | None = None
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    setup: Sequence[str] = ()
    additional_parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that SLURM would misread or that would end a job before it began."""
        for key in (*WHOLE, *WHOLE_OR_NULL):
            value = getattr(self, key)
            if not (_whole(value) and value > 0) and not (value is None and key in WHOLE_OR_NULL):
                kind = "a positive whole number" + (" or null" if key in WHOLE_OR_NULL else "")
                raise ValueError(f"hydra.launcher.{key}={value} is not {kind}")
        if not _whole(self.max_num_timeout) or self.max_num_timeout < 0:
            raise ValueError(
                f"hydra.launcher.max_num_timeout={self.max_num_timeout} is not a whole number from 0 on: 20 is usual"
            )
        if self.mem_gb is not None and not (isinstance(self.mem_gb, int | float) and self.mem_gb > 0):
            raise ValueError(f"hydra.launcher.mem_gb={self.mem_gb} is not positive: write GB, or null for the default")
        if self.signal_delay_s >= 60 * self.timeout_min:
            raise ValueError(
                f"hydra.launcher.signal_delay_s={self.signal_delay_s} is not shorter than timeout_min={self.timeout_min} "
                f"({60 * self.timeout_min} s): a job would be stopped as it starts, lower it"
            )

    def parameters(self) -> dict[str, Any]:
        """As submitit's executor takes them: sbatch's options with underscores; what is null is left to the cluster."""
        given = {key: value for key in PASSED if (value := getattr(self, key)) is not None}
        if self.mem_gb is not None:
            given["mem"] = f"{round(1024 * self.mem_gb)}MB"
        return {
            **given,
            "job_name": self.name,
            "time": self.timeout_min,
            "signal_delay_s": self.signal_delay_s,
            "array_parallelism": self.array_parallelism,
            "setup": [*self._own_setup(), *self.setup],
            "additional_parameters": {"requeue": True, **self.additional_parameters},
        }

    def _own_setup(self) -> list[str]:
        # srun does not inherit sbatch's --cpus-per-task any more (SLURM 22.05), and a job would have one core.
        return [] if self.cpus_per_task is None else ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
