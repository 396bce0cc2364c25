"""The CIFAR-10 classifier that DiffPure brings itself (Nie et al. 2022): a WRN-70-16 trained with dropout 0.3."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.runtime import checkpoint, libraries
from lgap_bench.runtime.pretrained import require_finite

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)  # of CIFAR-10's channels, as the release has them
PARALLEL = "module."  # what nn.DataParallel puts before every name


class Normalised(nn.Module):
    """RobustBench's wide residual network behind the release's normalisation."""

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int, widen: int, classes: int = 10) -> None:
        super().__init__()
        libraries.robustbench()
        from robustbench.model_zoo.architectures.wide_resnet import WideResNet

        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.model = WideResNet(depth=depth, widen_factor=widen, num_classes=classes, dropRate=0.3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, 32, 32) in [0, 1]."""
        return self.model((x - self.mean) / self.std)


def load(file: str, depth: int = 70, widen: int = 16) -> Normalised:
    """The network from a state dictionary as the release reads it, saved from nn.DataParallel or without.

    Raises ValueError if the file does not hold exactly these tensors.
    """
    model = Normalised(depth, widen)
    kind = f"WRN-{depth}-{widen} of DiffPure's release"
    held = checkpoint.state_dict(file, kind)
    checkpoint.fill(model.model, {name.removeprefix(PARALLEL): value for name, value in held.items()}, file, kind)
    require_finite(model, file)
    return model.eval()


def skeleton(depth: int = 70, widen: int = 16, **_: Any) -> Normalised:
    """The same architecture with random weights, for dry checks."""
    return Normalised(depth, widen)
