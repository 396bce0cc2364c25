"""What a process has once, whatever it measures: the device, and the libraries' global settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Device:
    """Where models run.

    Attributes:
        torch: torch's name for it.
        kind: `cpu`, or the GPU's model name: part of a record's identity, since another one rounds differently.
    """

    torch: str
    kind: str


CPU = Device("cpu", "cpu")


def find_device(wanted: str) -> Device:
    """The device for `auto`, `cpu`, `cuda`, `cuda:1` or `mps`; torch is imported only where a GPU may be.

    `auto` takes the first CUDA device, else the CPU: on Apple's GPUs nothing has been measured yet, so `mps` is asked for
    by name. Raises ValueError for a device that is not there.
    """
    driver = Path("/proc/driver/nvidia/version").exists() or Path("/dev/dxg").exists()
    if wanted == "cpu" or (wanted == "auto" and not driver):
        return CPU
    import torch

    if wanted == "mps":
        if torch.backends.mps.is_available():
            return Device("mps", "mps")
        raise ValueError("device=mps but no Apple GPU is available: use device=cpu")
    if torch.cuda.is_available():
        return _cuda(wanted, torch.cuda.device_count())
    if wanted == "auto":
        return CPU
    raise ValueError(f"device={wanted} but no CUDA device is available: use device=cpu")


def _cuda(wanted: str, count: int) -> Device:
    import torch

    _, _, number = wanted.partition(":")
    if number and not (number.isdigit() and int(number) < count):
        raise ValueError(
            f"device={wanted} but this machine has {count} CUDA devices, counted from 0: use device=cuda:0"
        )
    return Device(f"cuda:{number}" if number else "cuda", torch.cuda.get_device_name(int(number or 0)))


def configure(tf32: bool = False, threads: int | None = None, device: Device = CPU) -> None:
    """Set what a process has once: TF32, CPU threads (null: torch's own choice), determinism, the libraries' chatter.

    And which GPU is meant where code says `cuda` alone.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a cell never downloads: who measures checks its files first
    # Read when diffusers is loaded. That takes seconds, so only a cell with a diffusion model loads it.
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if device.torch.startswith("cuda:"):
        torch.cuda.set_device(device.torch)
    if threads:
        torch.set_num_threads(threads)
