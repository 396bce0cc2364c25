"""One check that every loader makes: no NaN or infinity in the weights."""

from __future__ import annotations

import torch
from torch import nn


def require_finite(module: nn.Module, weights: str) -> None:
    """Raise ValueError naming the first tensor that holds NaN or infinity: such a model's numbers mean nothing."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"weights={weights}: {name} holds NaN or infinity: train or download them again")
