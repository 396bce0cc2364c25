"""Part startup: whole processes that answer without a model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from scripts.bench.settings import ROOT, Settings
from scripts.bench.timing import race

GOAL = 2.0
CALLS = {
    "lgap-bench --help": (["--help"], 0),
    "lgap-bench run --help": (["run", "--help"], 0),
    "lgap-bench run attack.stepz=1": (["run", "attack.stepz=1"], 1),
}


def measure(settings: Settings) -> dict[str, Any]:
    """Seconds of each call, from starting the process to its end."""

    def call(arguments: list[str], expected: int) -> Callable[[], None]:
        def run() -> None:
            command = [sys.executable, "-m", "lgap_bench.cli", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL)
            if done.returncode != expected:
                raise RuntimeError(f"{command} ended with {done.returncode} instead of {expected}: {done.stderr}")

        return run

    calls = {name: call(*given) for name, given in CALLS.items()}
    figures = race(calls, settings.repetitions, "cpu", warm=settings.repetitions > 1).figures()
    return {
        "title": "Start-up, whole processes",
        "goal": f"at most {GOAL} s",
        "met": {name: seconds["median"] <= GOAL for name, seconds in figures["seconds"].items()},
        "seconds": figures["seconds"],
    }
