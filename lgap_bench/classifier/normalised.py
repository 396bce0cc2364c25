"""A network behind its normalisation: images in [0, 1] go in, whatever the network was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lgap_bench.runtime import checkpoint
from lgap_bench.runtime.pretrained import require_finite

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, of ImageNet's channels
PARALLEL = "module."  # what nn.DataParallel puts before every name


class Normalised(nn.Module):
    """`model((x - mean) / std)`: images (B, C, H, W) in [0, 1] -> logits. Without mean and std the model gets x itself.

    Args:
        model: images as it was trained on -> logits (B, classes).
        mean, std: one number per channel, of images in [0, 1]; both or neither.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self, model: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None) or (mean and std and len(mean) != len(std)) or not all(std or (1,)):
            raise ValueError(
                f"classifier.mean={mean} with classifier.std={std}: give both, a number above 0 per channel, or null for both"
            )
        self.model = model
        for name, values in (("mean", mean), ("std", std)):
            held = None if values is None else torch.tensor([float(value) for value in values]).view(1, -1, 1, 1)
            self.register_buffer(name, held, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.model(x if self.mean is None or self.std is None else (x - self.mean) / self.std)


def fill(model: nn.Module, file: str, kind: str) -> None:
    """Load exactly the tensors of a state dictionary: .pt or .pth, bare or under `state_dict`, or .safetensors.

    Names that nn.DataParallel gave are read too. Raises ValueError naming the first tensor that does not fit, or that is
    not finite, and for a file that is none.
    """
    path = Path(file).expanduser()
    if path.suffix == ".safetensors":
        try:
            held = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"classifier.file={file} is no safetensors file ({error}): download it again") from None
    else:
        held = checkpoint.state_dict(file, kind)
    if held and all(name.startswith(PARALLEL) for name in held):
        held = {name.removeprefix(PARALLEL): tensor for name, tensor in held.items()}
    checkpoint.fill(model, held, file, kind)
    require_finite(model, file)
