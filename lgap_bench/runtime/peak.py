"""The most memory that a cell needs. A process measures many cells, so the count begins anew at each."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

from lgap_bench.runtime.device import Device

ITSELF = Path("/proc/self")  # Linux; elsewhere a cell's peak holds those of the cells before it
FORGET_PEAK = "5"  # what clear_refs takes for it


def restart(device: Device) -> None:
    """Count the peak from here, without what earlier cells left behind."""
    let_go()
    if device.torch.startswith("cuda"):
        import torch

        if torch.cuda.is_initialized():  # else there is none yet, and torch refuses to forget it
            torch.cuda.reset_peak_memory_stats(device.torch)
    with suppress(OSError):
        (ITSELF / "clear_refs").write_text(FORGET_PEAK)


def peak(device: Device) -> float:
    """MiB since `restart` at most: of a GPU's memory what torch allocated, else what the process held of the machine's."""
    if device.torch.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device.torch) / 2**20
    if (known := _status("VmHWM")) is not None:
        return known
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB


def held(device: Device) -> float:
    """MiB that are in use now, of the same memory; 0 where the system does not say."""
    if device.torch.startswith("cuda"):
        import torch

        return torch.cuda.memory_allocated(device.torch) / 2**20
    return _status("VmRSS") or 0.0


def tells(device: Device) -> bool:
    """Whether a peak is counted from `restart` here."""
    return device.torch.startswith("cuda") or (device.torch == "cpu" and os.access(ITSELF / "clear_refs", os.W_OK))


def let_go() -> None:
    """Give back to the system what nobody uses any more. Where the C library cannot, it keeps it for later."""
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(key: str) -> float | None:
    """MiB that the kernel tells of this process; None where it does not."""
    with suppress(OSError, ValueError, IndexError):
        for line in (ITSELF / "status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) / 2**10
    return None
