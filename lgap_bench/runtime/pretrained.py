"""What every loader makes sure of: all tensors are there, and none holds NaN or infinity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn


def require_finite(module: nn.Module, weights: str) -> None:
    """Raise ValueError naming the first tensor that holds NaN or infinity: such a model's numbers mean nothing."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"weights={weights}: {name} holds NaN or infinity: train or download them again")


def pretrained(kind: Any, folder: Path, weights: str) -> Any:
    """`kind.from_pretrained(folder)` that refuses missing tensors, which the libraries fill with random numbers."""
    try:
        model, info = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    except (OSError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"weights={weights}: {folder} is no {kind.__name__} ({error}): copy or download it again"
        ) from None
    lacking = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if lacking:
        raise ValueError(
            f"weights={weights}: {folder} lacks {len(lacking)} tensors of {kind.__name__}, the first is {lacking[0]}: "
            "copy or download it again"
        )
    return model
