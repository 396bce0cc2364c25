"""Contestants in turns: A B A B ..., so that the noise of a shared machine meets all of them alike."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Race:
    """Wall and CPU seconds of every repetition, by contestant, and what the last repetition returned."""

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]
    results: dict[str, Any]

    def figures(self, *pairs: tuple[str, str]) -> dict[str, Any]:
        """Seconds per contestant and, for each pair (a, b), the ratio a/b of medians and its spread over repetitions.

        `cpu` is the ratio of medians of CPU time, which other processes on the machine disturb less.
        """
        return {
            "seconds": {name: spread(values) for name, values in self.wall.items()},
            "ratios": {f"{a} / {b}": self._ratio(a, b) for a, b in pairs},
        }

    def _ratio(self, a: str, b: str) -> dict[str, Any]:
        pairs = [x / y for x, y in zip(self.wall[a], self.wall[b], strict=True)]
        of_medians = statistics.median(self.wall[a]) / statistics.median(self.wall[b])
        cpu = statistics.median(self.cpu[a]) / max(statistics.median(self.cpu[b]), 1e-9)
        return {"of_medians": of_medians, "pairs": spread(pairs), "cpu": cpu}


def race(contestants: Mapping[str, Callable[[], Any]], repetitions: int, device: str, warm: bool = True) -> Race:
    """Run the contestants in turns; `warm` runs each once beforehand, unmeasured."""
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    results: dict[str, Any] = {}
    for repetition in range(-1 if warm else 0, repetitions):
        for name, contestant in contestants.items():
            wait(device)
            began, worked = time.perf_counter(), time.process_time()
            results[name] = contestant()
            wait(device)
            if repetition >= 0:
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - worked)
    return Race(wall, cpu, results)


def wait(device: str) -> None:
    """Until everything that was started on the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def spread(values: list[float]) -> dict[str, Any]:
    """Minimum, median and maximum, and the values themselves."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "all": values}


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(names) or None,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers", "torchattacks")},
    }
