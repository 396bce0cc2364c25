"""torchvision's ResNet-50 for ImageNet from its own checkpoint file."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lgap_bench.runtime import checkpoint
from lgap_bench.runtime.pretrained import require_finite


class ResNet50(nn.Module):
    """torchvision's ResNet-50, which RobustBench calls `Standard_R50`: ImageNet normalisation inside."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet50

        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.model = resnet50(weights=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1000) of images in [0, 1]."""
        return self.model((x - self.mean) / self.std)


def load(file: str) -> ResNet50:
    """The ResNet-50 from torchvision's own checkpoint file (resnet50-0676ba61.pth: IMAGENET1K_V1, 76.1 % top-1)."""
    model = ResNet50()
    kind = "torchvision ResNet-50"
    checkpoint.fill(model.model, checkpoint.state_dict(file, kind), file, kind)
    require_finite(model, file)
    return model.eval()


def skeleton(**_: Any) -> ResNet50:
    """The same architecture with random weights, for dry checks."""
    return ResNet50()
