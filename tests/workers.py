"""Other workers, as tests need them: one that is gone, one on another machine, and processes that hold a lease.

python tests/workers.py hold <outputs> <name> <beat> <stale>    takes it, says so, lets it go when its input ends
python tests/workers.py hammer <outputs> <rounds> <seed>        takes one lease again and again once there is a file `go`, and dies of it often
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lgap_bench.runtime import lease
from lgap_bench.runtime.lease import Lease, Limits
from lgap_bench.runtime.worker import Worker, this_worker

GONE = replace(this_worker(), started="1")  # this process' pid, as another process had it before
FAR = replace(this_worker(), host="far", kernel="0-0", pid=1)


def died(held: Lease, worker: Worker = GONE) -> None:
    """Leave a lease as a kill does: no more beats, and its name that of a worker that is gone."""
    held._ended.set()
    os.rename(held.file, held.file.with_name(f"{worker.name},{held.file.name.split(',', 4)[4]}"))


def start(*words: object) -> subprocess.Popen[str]:
    """One of the processes above."""
    command = [sys.executable, __file__, *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hold(outputs: Path, name: str, limits: Limits) -> None:
    with lease.lease(outputs, name, "it", limits=limits) as held:
        print("held", flush=True)
        sys.stdin.read()
        print("still held" if held.held else "lost", flush=True)


def hammer(outputs: Path, rounds: int, seed: int) -> None:
    """Of a file that only the holder makes and removes nobody ever finds another's: two holders at once exit with 3.

    The file system is slow where it matters: between what a worker has seen and what it does then.
    """
    dice, place, inside = random.Random(seed), lease.path(outputs, "one"), outputs / "inside"
    for name in ("rename", "utime", "listdir"):
        setattr(os, name, delayed(getattr(os, name), dice))
    while not (outputs / "go").exists():
        time.sleep(0.001)
    for _ in range(rounds):
        while (held := lease.take(place)) is None:
            lease.held(outputs, "")  # the folder may be removed while it is read
        try:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            sys.exit(3)
        time.sleep(dice.random() / 500)
        inside.unlink()
        if dice.random() < 0.5:
            died(held)
        else:
            held.let_go()


def delayed(call: Callable[..., Any], dice: random.Random) -> Callable[..., Any]:
    def late(*given: Any) -> Any:
        time.sleep(dice.random() / 300)
        return call(*given)

    return late


if __name__ == "__main__":
    kind, folder, *rest = sys.argv[1:]
    if kind == "hold":
        hold(Path(folder), rest[0], Limits(float(rest[1]), float(rest[2]), 0.05))
    else:
        hammer(Path(folder), int(rest[0]), int(rest[1]))
