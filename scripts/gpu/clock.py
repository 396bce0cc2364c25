"""Seconds, memory and arithmetic of one call on any device, and how much a matrix product reaches at most there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from lgap_bench.forecast.operations import Operations
from scripts.bench import memory
from scripts.bench.timing import wait

SIDE = {"cpu": 512, "cuda": 8192}  # of the square matrices whose product is taken for the device's peak


def seconds(run: Callable[[], Any], device: str, repetitions: int) -> float:
    """The median of so many calls, after one that is not counted."""
    run()
    taken = []
    for _ in range(repetitions):
        wait(device)
        began = time.perf_counter()
        run()
        wait(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def flops(run: Callable[[], Any]) -> int:
    """Floating point operations of a call's matrix products and convolutions."""
    with Operations() as counter:
        run()
    return counter.total


def matmul_peak(device: str, dtype: torch.dtype, repetitions: int) -> float:
    """Operations per second of a large matrix product: what a network's share is held against."""
    side = SIDE[device]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device, repetitions)


def call(run: Callable[[], Any], device: str, repetitions: int, peak: float) -> dict[str, float | None]:
    """What one call costs: seconds, MiB beyond what is there, operations, and their share of the peak."""
    count, taken = flops(run), seconds(run, device, repetitions)
    return {
        "seconds": taken,
        "peak_mib": memory.of_call(run, device),
        "gflop": count / 1e9,
        "share_of_matmul": count / taken / peak if count else None,
    }
