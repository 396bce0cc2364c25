"""How sure the classifier is of an image's classes along its purification: where on the way an attack survives."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgap_bench.attack.problem import Parts, Problem
from lgap_bench.noise import Noise


@torch.no_grad()
def confidence(
    parts: Parts, problem: Problem, x: Tensor, noise: Noise, observed: list[str] | None
) -> NDArray[np.float32] | None:
    """Probability of the classes that are in the images x, the problem's first, (B, states): of the image itself, then of
    every state of one purification. None for a purifier that has nothing between.

    The bare classifier is asked; softmax over its classes, of several in an image the sum.
    """
    defense, few = parts.defense, problem.take(range(len(x)))
    states = defense.purifier.path(defense.as_model_input(x), noise, observed)
    if states is None:
        return None
    present = few.labels if few.present else torch.nn.functional.one_hot(few.y, len(parts.dataset.classes))
    images = (x, *(each.to(x.dtype) for each in states))
    found = [(defense.classify(each, noise).softmax(-1) * present.to(each)).sum(-1) for each in images]
    return torch.stack(found, dim=1).float().cpu().numpy()
