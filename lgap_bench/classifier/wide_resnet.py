"""Wide residual network (Zagoruyko and Komodakis 2016), images in [0, 1] -> logits, normalisation inside."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file
from torch import Tensor, nn

from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.pretrained import require_finite


class Block(nn.Module):
    """Pre-activation basic block: BN, ReLU, conv, twice; a 1x1 convolution where the width or the stride changes."""

    def __init__(self, width_in: int, width_out: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        changes = stride != 1 or width_in != width_out
        self.shortcut = nn.Conv2d(width_in, width_out, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(h)
        return skip + self.conv2(self.dropout(F.relu(self.norm2(self.conv1(h)))))


class WideResNet(nn.Module, PyTorchModelHubMixin):
    """WRN-`depth`-`widen`: (B, 3, H, W) in [0, 1] -> (B, classes) logits. `depth` = 6k + 4.

    Without weights it is a start for `train=...`. `dropout` is the share of values dropped while training.
    """

    def __init__(
        self,
        depth: int = 28,
        widen: int = 10,
        classes: int = 10,
        mean: float = 0.5,
        std: float = 0.5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"classifier.depth={depth} is not 6k + 4: use 10, 16, 22, 28, ...")
        blocks = (depth - 4) // 6
        widths = [16, 16 * widen, 32 * widen, 64 * widen]
        self.mean, self.std = mean, std
        self.conv = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.blocks = nn.Sequential(
            *(
                Block(widths[g] if b == 0 else widths[g + 1], widths[g + 1], 2 if b == 0 and g > 0 else 1, dropout)
                for g in range(3)
                for b in range(blocks)
            )
        )
        self.norm = nn.BatchNorm2d(widths[3])
        self.head = nn.Linear(widths[3], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(self.conv((x - self.mean) / self.std))
        return self.head(torch.mean(F.relu(self.norm(h)), dim=(2, 3)))


def load(weights: str) -> WideResNet:
    """A WideResNet from a folder written by `save_pretrained` (config.json, model.safetensors)."""
    folder = weight_files.locate(weights)
    try:
        model = WideResNet(**json.loads((folder / "config.json").read_text()))
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"weights={weights} is no WideResNet ({error}): give a folder with its config.json and model.safetensors"
        ) from None
    require_finite(model, weights)
    return model.eval()


def skeleton(weights: str | None = None, **config: Any) -> WideResNet:
    """The architecture that a config names, with random weights, for dry checks."""
    return load(weights) if weights is not None else WideResNet(**config)
