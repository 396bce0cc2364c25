"""Log-odds of detections, and how much of them there is: what an attacker lowers so that boxes vanish."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def logit(threshold: float) -> float:
    """log(t / (1 - t)) of a threshold in (0, 1)."""
    return math.log(threshold / (1 - threshold))


def others(logits: Tensor, chosen: Tensor) -> Tensor:
    """Logits (..., C) and one class each, (...) -> log-odds of that class's softmax against all others together.

    Not by way of the probability, which rounds to 1 and has no gradient there.
    """
    rest = logits.scatter(-1, chosen[..., None], -torch.inf).logsumexp(-1)
    return logits.gather(-1, chosen[..., None]).squeeze(-1) - rest


def of_classes(logits: Tensor, said: Tensor, softmax: bool) -> Tensor:
    """Logits (B, Q, C) of Q queries -> (B, K): of each class of `said` (K,) its largest log-odds over the queries.

    Args:
        softmax: whether classes exclude one another (the last of C is "no object"), or each has a sigmoid of its own.
    """
    if not softmax:
        return logits[..., said].amax(1)
    best = logits.log_softmax(-1)[..., said].argmax(1)  # log-odds rise with the probability
    rows = logits.gather(1, best[..., None].expand(-1, -1, logits.shape[-1]))
    return others(rows, said.expand(len(rows), -1))


def presence(logits: Tensor, said: Tensor, softmax: bool, threshold: float) -> Tensor:
    """Logits (B, Q, C) -> (B,): the sum over queries of softplus(log-odds of the best class - the threshold's).

    A query far above the threshold counts with slope 1, one far below with none, so that lowering the sum spends itself
    on what is found or nearly so. It is never 0: something may always come back.
    """
    if softmax:
        chosen = said[logits[..., said].argmax(-1)]
        odds = others(logits, chosen)
    else:
        odds = logits[..., said].amax(-1)
    return F.softplus(odds - logit(threshold)).sum(1)
