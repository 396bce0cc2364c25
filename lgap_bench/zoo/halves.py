"""Weights in half precision on disk, float32 in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file


def save(model: Any, out: Path) -> None:
    """`save_pretrained`, then the weights rounded to float16: half the space, and the config goes on saying float32.

    Batch norm's counters are integers and stay so.
    """
    model.save_pretrained(out)
    for file in out.glob("*.safetensors"):
        tensors = load_file(file)
        halves = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
        save_file(halves, file, metadata={"format": "pt"})
        file.chmod(0o644)  # safetensors makes it the owner's alone
