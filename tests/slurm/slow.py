"""An attack that takes its time, for jobs that something is to happen to while they run."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from torch import Tensor

from lgap_bench.attack.problem import Problem
from lgap_bench.attack.random_noise import RandomNoise


@dataclass(frozen=True)
class Slow(RandomNoise):
    """Random noise; LGAP_BENCH_SLOW="1:6,2:9" waits 6 seconds a chunk with seed 1 and 9 with seed 2.

    The time is no part of the config: the undisturbed cell, measured without waiting, has the same record.
    """

    def __call__(self, problem: Problem) -> Tensor:
        """Attacked images, after a while."""
        times = dict(each.split(":") for each in os.environ.get("LGAP_BENCH_SLOW", "").split(",") if each)
        until = time.monotonic() + float(times.get(str(problem.seed), 0))
        while time.monotonic() < until:
            time.sleep(0.1)
        return super().__call__(problem)
