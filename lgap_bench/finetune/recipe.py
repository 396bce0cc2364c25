"""How a classifier is trained: the one recipe of both stages, `train` (from scratch) and `finetune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgap_bench.runtime.choices import require_choices

Augment = Literal["none", "shift", "crop_flip"]


@dataclass(frozen=True)
class Recipe:
    """Cross-entropy on labelled images, the best epoch chosen on validation images.

    Args:
        images: `purified` (clean training images through the cell's purifier, LGAP section 3.2) or `clean`.
        epochs, batch_size, lr, momentum, weight_decay, label_smoothing: as usual; momentum is SGD's.
        optimizer: `adam` or `sgd` (Nesterov is off, as in the reference code that ADP names).
        milestones, factor: the learning rate is multiplied by `factor` at the start of each of these epochs (from 0).
        schedule: `constant` (with the milestones) or `cosine` (to zero over all steps).
        augment: `none`, `shift` (up to 2 pixels, digits) or `crop_flip` (4 pixels and mirror images, CIFAR).
        copies: purified copies of each training image, other noise in each; epoch e sees copy e mod `copies`.
        n: first training images to use, null for all.
        seed: of initial weights, order and augmentation. Purification noise has a stream of its own, the same for all seeds.
        batch: images purified together; changes float rounding only, and the 8 bits that are kept hide most of it.
        purified: folder of purified images made before by the same config, null for one below the outputs folder.
    """

    images: Literal["purified", "clean"]
    epochs: int
    batch_size: int
    lr: float
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    milestones: tuple[int, ...] = ()
    factor: float = 0.2
    augment: Augment = "none"
    copies: int = 1
    n: int | None = None
    seed: int = 0
    batch: int = 250
    purified: str | None = None

    def __post_init__(self) -> None:
        require_choices(self, "recipe")

    def optimizer_of(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam or SGD over all weights."""
        if self.optimizer == "adam":
            return torch.optim.Adam(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(model.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def rate(self, progress: float) -> float:
        """The learning rate when `progress` epochs (a fraction) are done."""
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * progress / self.epochs)).item())
        return self.lr * self.factor ** sum(progress >= milestone for milestone in self.milestones)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


def augmented(images: Tensor, kind: Augment, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each cut out of its padded self at a random place, and mirrored half of the time (crop_flip)."""
    if kind == "none":
        return images
    pixels = {"shift": 2, "crop_flip": 4}[kind]
    height, width = images.shape[-2:]
    padded = F.pad(images, (pixels,) * 4)
    # Drawn by the caller's generator on the CPU, so that a resumed epoch cuts the same places on any device.
    places = torch.randint(0, 2 * pixels + 1, (len(images), 2), generator=generator).tolist()
    cut = torch.stack(
        [image[:, dy : dy + height, dx : dx + width] for image, (dy, dx) in zip(padded, places, strict=True)]
    )
    if kind == "crop_flip":
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        cut[mirrored] = cut[mirrored].flip(3)
    return cut
