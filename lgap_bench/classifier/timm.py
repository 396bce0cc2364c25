"""Classifiers of timm (Wightman 2019) by their names, from a local file. timm is optional."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from typing import Any

from lgap_bench.classifier.normalised import Normalised, fill


def load(
    name: str,
    file: str,
    classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Normalised:
    """A model with exactly the tensors of `file`: images in [0, 1] -> logits, in eval mode.

    Args:
        name: timm's, with or without the tag of its weights: `resnet18`, `vit_base_patch16_224.augreg_in21k_ft_in1k`.
        file: model.safetensors or pytorch_model.bin of the hub's `timm/<name>`, or a .pth of the same architecture.
        classes: logits; null: as many as the published weights have.
        mean, std: null: those that timm knows of the name.
    Raises ValueError if timm is not installed, for a name that it does not have and for a file of another architecture.
    """
    model = skeleton(name, classes, mean, std)
    fill(model.model, file, f"timm {name}")
    return model.eval()


def skeleton(
    name: str,
    classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **_: Any,
) -> Normalised:
    """The same architecture with random weights, for dry checks."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside timm
            import timm
    except ImportError:
        raise ValueError("classifier=timm needs timm: pip install timm") from None
    if not timm.is_model(name.split(".")[0]):
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), 3, 0.4)
        raise ValueError(f"classifier.name={name} is no model of timm: use {', '.join(close) or 'resnet18'}")
    try:
        model = timm.create_model(name, pretrained=False, **({} if classes is None else {"num_classes": classes}))
    except RuntimeError as error:
        raise ValueError(f"classifier.name={name}: timm cannot make it ({error}): leave the tag away") from None
    known = model.pretrained_cfg
    return Normalised(model, mean or known["mean"], std or known["std"])
