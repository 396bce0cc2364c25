"""Sweeps over a cluster as a user starts them, and their records beside the undisturbed ones."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from cluster import Cluster, wait_for

from lgap_bench.record import Record
from lgap_bench.sweep.status import Status, SweepFolder

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SMALL = ["score_draws=2", "threads=1", "device=cpu", "logger=none"]
# Two rows of a table with three seeds each: more cells than an array of the tests' cluster may have.
TABLE = ["purifier=downsample,lgap", "attack=bpda", "attack.steps=2", "seed=0,1,2", "n=4", "chunk=2", *SMALL]
# Cells in four chunks whose attack waits as long as LGAP_BENCH_SLOW says.
SLOW = ["purifier=downsample", "attack=random", "attack._target_=slow.Slow", "n=4", "chunk=1", *SMALL]
LAUNCHER = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.array_parallelism=2"]


def environment(base: dict[str, str], slow: str = "") -> dict[str, str]:
    """Where the command finds the package, Hydra's plugins and the slow attack, in its jobs too."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "lgap_bench" / "plugins", HERE)))
    return {**base, "PYTHONPATH": path, "LGAP_BENCH_SLOW": slow, "OMP_NUM_THREADS": "1"}


def command(outputs: Path, *words: str) -> list[str]:
    """The words of `lgap-bench run -m`."""
    return [sys.executable, "-m", "lgap_bench.cli", "run", "-m", *words, f"outputs={outputs}"]


class Sweep:
    """One call of the command, running beside the test."""

    def __init__(self, cluster: Cluster, outputs: Path, *words: str, slow: str = "") -> None:
        outputs.mkdir(parents=True, exist_ok=True)
        self.outputs, self.log = outputs, outputs / "launcher.log"
        with self.log.open("a") as log:
            log.write("\n")
            self.skipped = log.tell()
            self.process = subprocess.Popen(
                command(outputs, *LAUNCHER, *words), env=environment(cluster.environment, slow), stdout=log, stderr=log
            )

    @property
    def said(self) -> str:
        """What this call has printed so far."""
        with self.log.open() as log:
            log.seek(self.skipped)
            return log.read()

    def end(self, seconds: float = 240) -> int:
        """Wait for the command; its exit code. Raises TimeoutError with what it said."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"the launcher does not end; it said:\n{self.said}") from None

    def kill(self) -> None:
        """End the launcher without a word."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def array(self) -> str:
        """SLURM's number of the array, once it was taken."""
        wait_for("the array", 60, lambda: re.search(r"(array|job,) \d+ in SLURM", self.said))
        found = re.search(r"(?:array|job,) (\d+) in SLURM", self.said)
        assert found
        return found[1]

    def jobs(self) -> list[Status]:
        """All jobs as their files say."""
        (folder,) = (self.outputs / "sweeps").iterdir()
        return SweepFolder(folder).jobs()

    def until(self, number: int, images: int, seconds: float = 120) -> Status:
        """Wait until a job has so many images behind it, and runs."""

        def there() -> bool:
            return bool(
                (self.outputs / "sweeps").exists()
                and (job := dict(enumerate(self.jobs())).get(number))
                and job.state == "running"
                and job.images >= images
            )

        wait_for(f"job {number} to have {images} images; the launcher said:\n{self.said}", seconds, there)
        return self.jobs()[number]


def undisturbed(outputs: Path, *words: str) -> dict[str, dict[str, list[object]]]:
    """The samples of every record of a sweep that one process has measured in peace."""
    done = subprocess.run(
        command(outputs, *words), env=environment(dict(os.environ)), capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    return records(outputs)


def records(outputs: Path) -> dict[str, dict[str, list[object]]]:
    """The samples of every record, by its id. Raises ValueError if one is damaged or not whole."""
    found = {}
    for folder in sorted((outputs / "records").iterdir()):
        record = Record(folder)
        record.check()
        assert record.settled, f"{folder} is not tidy: {sorted(path.name for path in folder.iterdir())}"
        found[folder.name] = record.samples()
    return found
