"""Losses that an attacker raises, per row: (logits (B, K), labels (B,)) -> (B,)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax of the label."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest other logit minus the label's (Carlini and Wagner 2017, without the clipping at -kappa); > 0 is wrong."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - true


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020, eq. 6); needs three classes."""
    ordered = logits.sort(dim=1, descending=True).values
    return margin(logits, labels) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def targeted_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax of the target class: raising it pulls the prediction there."""
    return -F.cross_entropy(logits, targets, reduction="none")


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted DLR (Croce and Hein 2020, eq. 7); needs four classes."""
    ordered = logits.sort(dim=1, descending=True).values
    true, aim = (logits.gather(1, index[:, None]).squeeze(1) for index in (labels, targets))
    return -(true - aim) / (ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3]) + 1e-12)
