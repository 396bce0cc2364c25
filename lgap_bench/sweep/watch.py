"""`lgap-bench status`: one line per cell of a sweep, from its files alone, from any shell or login node."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lgap_bench.logger.pace import duration
from lgap_bench.runtime.words import Parser
from lgap_bench.sweep.command import COUNTED, is_led, telling, with_shards
from lgap_bench.sweep.status import BAD, GOOD, PART, RUNNING, SUBMITTED, Status, SweepFolder

EVERY = 2.0  # seconds between two looks with --watch


def main() -> None:
    """Print a sweep's cells, the latest sweep's by default; exit code 1 if any failed, was killed or was interrupted."""
    parser = Parser("status", "One line per cell of a sweep.")
    parser.add_argument("sweep", nargs="?", help="a sweep's name, or the beginning of it; the latest one by default")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="the folder that the sweep writes to")
    parser.add_argument(
        "--watch", action="store_true", help="again every two seconds, while something runs or may start"
    )
    parser.add_argument("--list", action="store_true", help="all sweeps, a line each")
    given = parser.given()
    if given.list:
        print("\n".join(_line_of(folder) for folder in sweeps(given.outputs)))
        return
    folder = chosen(given.outputs, given.sweep)
    jobs = with_shards(folder)
    while given.watch and going_on(jobs) and not left(folder, jobs):
        clear = "\033[2J\033[H" if sys.stdout.isatty() else ""
        print(clear + "\n".join(lines(folder, jobs)), flush=True)
        time.sleep(EVERY)
        jobs = with_shards(folder)
    print("\n".join(lines(folder, jobs)))
    if left(folder, jobs):
        print("  nobody leads this sweep any more: the same command again measures what is missing")
    if any(job.state in BAD for job in jobs):
        sys.exit(1)


def going_on(jobs: Sequence[Status]) -> bool:
    """Whether any job runs or waits."""
    return any(job.state not in (*GOOD, *BAD) for job in jobs)


def left(folder: SweepFolder, jobs: Sequence[Status]) -> bool:
    """Whether jobs wait that nobody will start: their launcher has ended, none runs, and none was left to SLURM."""
    running = any(job.state == RUNNING for job in jobs)
    return going_on(jobs) and not running and not is_led(folder) and not (folder.path / SUBMITTED).exists()


def sweeps(outputs: Path) -> list[SweepFolder]:
    """All sweeps below an outputs folder, the latest last. Raises ValueError if there is none."""
    found = sorted(
        (outputs / "sweeps").glob("*/sweep.json"), key=lambda file: SweepFolder(file.parent).head().get("began", 0)
    )
    if not found:
        raise ValueError(
            f"outputs={outputs} has no sweeps: start one with `lgap-bench run -m ...`, or name another folder"
        )
    return [SweepFolder(file.parent) for file in found]


def chosen(outputs: Path, name: str | None) -> SweepFolder:
    """The sweep of this name, or whose name begins so; the latest without one."""
    held = sweeps(outputs)
    if name is None:
        return held[-1]
    fitting = [folder for folder in held if folder.name == name] or [f for f in held if f.name.startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(folder.name for folder in (fitting or held)[-8:])
    raise ValueError(f"sweep {name} is {'not one alone' if fitting else 'not known'} here: there are {shown}")


def lines(folder: SweepFolder, jobs: Sequence[Status]) -> list[str]:
    """The sweep: a line per job, then how many of each kind."""
    words = telling(jobs)
    width = max((len(text) for text in words.values()), default=0)
    told = [f"{job.number:>4}  {words[job.number]:<{min(width, 60)}}  {_state(job)}" for job in jobs]
    return [*told, _line_of(folder, jobs)]


def _state(job: Status) -> str:
    """A job's state with what there is to say of it."""
    if job.state == RUNNING:
        share = f" {job.images}/{job.n}" if job.n else ""
        robust = f", robust so far {job.robust:.1f} %" if job.robust is not None else ""
        left = f", {duration(max(0.0, job.left - (time.time() - job.beat)))} left" if job.left is not None else ""
        doing = f", {job.doing}" if job.doing else ""
        return f"running{share}{robust}{left}{doing}{_again(job)}"
    said = f": {job.sentence}" if job.sentence and (job.state in BAD or job.state == PART) else ""
    took = f" in {duration(job.ended - job.began)}" if job.ended and job.began and job.state in GOOD else ""
    return f"{job.state}{took}{said}{_again(job)}"


def _again(job: Status) -> str:
    return f" (start {job.attempt})" if job.attempt > 1 else ""


def _line_of(folder: SweepFolder, jobs: Sequence[Status] | None = None) -> str:
    held = with_shards(folder) if jobs is None else jobs
    count = Counter(job.state for job in held)
    told = ", ".join(f"{count[state]} {word}" for state, word in COUNTED.items() if count[state])
    return f"sweep {folder.name}: {len(held)} {'cell' if len(held) == 1 else 'cells'}: {told}"
