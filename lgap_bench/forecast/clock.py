"""Seconds of work. On a CPU of one thread the processor's, which others on the machine do not change; else the clock's."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from lgap_bench.runtime.device import Device


def seconds_of(run: Callable[[], object], device: Device) -> float:
    """Of one call."""
    clock = time.process_time if device.torch == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    wait(device)
    began = clock()
    run()
    wait(device)
    return clock() - began


def wait(device: Device) -> None:
    """Until a GPU has done what it was given."""
    if device.torch.startswith("cuda"):
        torch.cuda.synchronize(device.torch)
