"""What a process has once, whatever it measures: the device, and the libraries' global settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def torch_device(wanted: str) -> tuple[str, str]:
    """The torch device and its class, which is part of a record's identity, for `auto`, `cpu` or `cuda`.

    torch is imported only where a GPU may be. Raises ValueError for cuda without one.
    """
    driver = Path("/proc/driver/nvidia/version").exists() or Path("/dev/dxg").exists()
    if wanted == "cpu" or (wanted == "auto" and not driver):
        return "cpu", "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name()
    if wanted == "auto":
        return "cpu", "cpu"
    raise ValueError("device=cuda but no CUDA device is available: use device=cpu")


def settle(cell: Mapping[str, Any]) -> None:
    """Set what a process has once: TF32, threads, determinism, the libraries' chatter. Each is a key of the cell, or fixed."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a cell never downloads: who measures checks its files first
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = cell["tf32"]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if cell["threads"]:
        torch.set_num_threads(cell["threads"])
