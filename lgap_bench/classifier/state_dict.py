"""A network of one's own code with its weights in a file of their own: a local state dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lgap_bench.classifier.normalised import Normalised, fill
from lgap_bench.runtime.imported import imported


def load(
    build: str,
    file: str,
    arguments: Mapping[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Normalised:
    """The nn.Module that `build(**arguments)` makes, with exactly the tensors of `file`, in eval mode.

    Args:
        build: `torchvision.models.resnet18` or any dotted name of a function or class.
        file: .pt, .pth or .safetensors; see `normalised.fill`.
        mean, std: the normalisation that the weights were trained with; null where they take images in [0, 1].
    """
    model = skeleton(build, arguments, mean, std)
    fill(model.model, file, build)
    return model.eval()


def skeleton(
    build: str,
    arguments: Mapping[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **_: Any,
) -> Normalised:
    """The same architecture with the weights that its code begins with, for dry checks."""
    made = imported(build, "classifier.build")(**(arguments or {}))
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"classifier.build={build} returns {type(made).__name__}: return the nn.Module of these weights"
        )
    return Normalised(made, mean, std)
