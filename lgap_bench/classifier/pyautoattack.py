"""The CIFAR-10 ResNet-18 that the pyautoattack wheel brings: small real weights whose robust accuracy is known."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from torch import nn

from lgap_bench.classifier.normalised import fill
from lgap_bench.runtime.imported import imported
from lgap_bench.runtime.weights import sha256


def load(sha256: str) -> nn.Module:
    """The network with its weights, images (B, 3, 32, 32) in [0, 1] -> logits (B, 10), in eval mode; it normalises nothing.

    `sha256` is that of the weights, by which the record is identified. Raises ValueError if the package is not installed or
    brings another file.
    """
    file = weights()
    _require(file, sha256)
    model = skeleton()
    fill(model, str(file), "ResNet-18 of pyautoattack")
    return model.eval()


def weights() -> Path:
    """The file inside the installed package."""
    spec = importlib.util.find_spec("pyautoattack")
    if spec is None or spec.origin is None:
        raise ValueError(
            "classifier: its weights come with a package that is not installed: pip install pyautoattack==0.2.0"
        )
    return Path(spec.origin).parent / "examples" / "model_test.pt"


def skeleton(**_: Any) -> nn.Module:
    """The same architecture with random weights, for dry checks."""
    model: nn.Module = imported("pyautoattack.examples.resnet.ResNet18", "classifier")()
    return model


def _require(file: Path, expected: str) -> None:
    found = sha256(file) if file.is_file() else None
    if found != expected:
        raise ValueError(
            f"classifier: {file} has SHA-256 {found} and not {expected}: pip install --force-reinstall pyautoattack==0.2.0"
        )
