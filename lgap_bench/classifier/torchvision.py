"""torchvision's classifiers by their names, from its own checkpoint files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lgap_bench.classifier.normalised import IMAGENET_MEAN, IMAGENET_STD, Normalised, fill


def load(
    file: str,
    name: str = "resnet50",
    classes: int = 1000,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Normalised:
    """A model from its checkpoint file: images in [0, 1] -> logits, in eval mode.

    The default is what RobustBench calls `Standard_R50` (resnet50-0676ba61.pth: IMAGENET1K_V1, 76.1 % top-1).

    Args:
        file: .pth as torchvision publishes it, or a state dictionary of the same architecture.
        name: torchvision's, e.g. resnet18, vit_b_16, convnext_tiny.
        classes: logits.
        mean, std: the normalisation that the weights were trained with.
    """
    model = skeleton(name, classes, mean, std)
    fill(model.model, file, "torchvision " + ("ResNet-50" if name == "resnet50" else name))
    return model.eval()


def skeleton(
    name: str = "resnet50",
    classes: int = 1000,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    **_: Any,
) -> Normalised:
    """The same architecture with random weights, for dry checks. Raises ValueError for a name that is none."""
    import difflib

    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, 3, 0.4)
        raise ValueError(f"classifier.name={name} is no classifier of torchvision: use {', '.join(close or known[:5])}")
    # Inception and GoogLeNet bring weights for heads that are used in training alone.
    heads = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    return Normalised(models.get_model(name, weights=None, num_classes=classes, **heads), mean, std)
