"""Images with several labels, as an attack meets them: each with one, for which the best of its classes stands."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lgap_bench.noise import Noise
from lgap_bench.task.multi_label import merged

Present = Mapping[int, Tensor]  # sample id -> its classes, (classes,) bool; empty where an image has one label


def one_class(view: Any, present: Present) -> Any:
    """The same view, of the same class, whose logits are `merged`; as it is where images have one label.

    So attacks and libraries, which know one label, attack exactly what is scored: that the top class is in the image.
    Raises ValueError, when it is asked, for images that nobody names: of a part of a batch the classes are not known.
    """
    if not present or vars(view).get("present") is present:
        return view
    asked = copy.copy(view)  # its parts are shared
    asked.present = present
    asked.query = lambda x, noise: merged(view.query(x, noise), _labels(present, noise.rows(0, len(x)), x))
    asked.logits = lambda x, noise, observed=None: merged(view.logits(x, noise, observed), _labels(present, noise, x))
    return asked


def _labels(present: Present, noise: Noise, x: Tensor) -> Tensor:
    """The classes of these rows, (rows, classes) bool."""
    if any(each not in present for each in noise.ids):
        raise ValueError(
            "the attack looks at some images of a batch without saying which, so the labels of images with several are not known: use attack=pgd, fgsm, cw, deepfool, apgd_ce or full_ensemble"
        )
    return torch.stack([present[each] for each in noise.ids]).to(x.device)
