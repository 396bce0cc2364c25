"""The miniature's classifiers: a standard WRN-10-1 and the same network trained on PGD images (Madry et al. 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgap_bench.classifier.wide_resnet import WideResNet
from lgap_bench.dataset.digits import digits
from lgap_bench.zoo.fit import Batch, fit, shift


def train_standard(out: Path, work: Path) -> None:
    """Cross-entropy on shifted training images, 25 epochs' worth of steps."""
    torch.manual_seed(0)
    model: Any = WideResNet(depth=10, widen=1)

    def loss(batch: Batch) -> Tensor:
        return F.cross_entropy(model(shift(batch.images, batch.generator)), batch.labels, label_smoothing=0.05)

    fit("standard", [model], loss, digits("train"), work, steps=1400, lr=4e-3, ema=0.99, weight_decay=1e-3)
    model.save_pretrained(out)


def train_adversarial(out: Path, work: Path, eps: float = 64 / 255, inner_steps: int = 5) -> None:
    """Madry et al. 2018: cross-entropy on PGD-5 images within linf `eps`, random start, batch norm in train mode."""
    torch.manual_seed(1)
    model: Any = WideResNet(depth=10, widen=1)

    def loss(batch: Batch) -> Tensor:
        x = shift(batch.images, batch.generator)
        budget = eps * min(1.0, 2 * batch.progress)  # from zero: at full budget the first steps learn nothing
        return F.cross_entropy(model(_pgd(model, x, batch, budget, inner_steps)), batch.labels)

    fit("adversarial", [model], loss, digits("train"), work, steps=900, lr=4e-3, ema=0.99, weight_decay=1e-3)
    model.save_pretrained(out)


def _pgd(model: nn.Module, x: Tensor, batch: Batch, eps: float, steps: int) -> Tensor:
    """Inner maximisation, written out: training needs no success test and no restarts."""
    x_adv = (x + (2 * torch.rand(x.shape, generator=batch.generator) - 1) * eps).clamp(0, 1)
    for _ in range(steps):
        x_adv.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x_adv), batch.labels), x_adv)
        x_adv = (x_adv.detach() + 2.5 * eps / steps * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return x_adv.detach()
