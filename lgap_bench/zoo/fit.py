"""One training loop for every component of the miniature: seeded per step, resumable, with progress."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgap_bench.dataset.base import DataSet

SAVE_EVERY_S = 20.0  # a killed training loses at most this much


@dataclass(frozen=True)
class Batch:
    """One training batch, the generator of all the step's further randomness, and how far training is, in [0, 1)."""

    images: Tensor
    labels: Tensor
    generator: torch.Generator
    progress: float


def shift(images: Tensor, generator: torch.Generator, pixels: int = 2) -> Tensor:
    """Each image moved by up to `pixels` in both directions; the digits' border is empty, so rolling is shifting."""
    moves = torch.randint(-pixels, pixels + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image.roll((dy, dx), (1, 2)) for image, (dy, dx) in zip(images, moves, strict=True)])


def warp(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image rotated by up to 12 degrees, scaled by up to 12 %, sheared and shifted a little: other handwriting."""
    count = len(images)
    turn, shear = (0.21 * (2 * torch.rand(count, generator=generator) - 1) for _ in range(2))
    scale = 1 + 0.12 * (2 * torch.rand(count, generator=generator) - 1)
    move = 0.12 * (2 * torch.rand(count, 2, generator=generator) - 1)
    cos, sin = torch.cos(turn) * scale, torch.sin(turn) * scale
    rows = torch.stack([cos, -sin + shear, move[:, 0], sin, cos, move[:, 1]], dim=1)
    grid = F.affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def noisy(images: Tensor, generator: torch.Generator, most: float) -> Tensor:
    """The second half of a batch with Gaussian noise, sigma up to `most` per image, clipped to [0, 1]."""
    sigma = most * torch.rand(len(images), 1, 1, 1, generator=generator)
    sigma[: len(images) // 2] = 0
    return (images + sigma * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def fit(
    name: str,
    modules: list[nn.Module],
    loss: Callable[[Batch], Tensor],
    data: DataSet,
    work: Path,
    steps: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    ema: float = 0.0,
    weight_decay: float = 0.0,
) -> None:
    """Minimise `loss` by AdamW with a warm-up and a cosine to zero; `modules` end in eval mode, averaged if `ema` > 0.

    Step i draws its batch and its noise from a generator seeded with i alone, so that a training that was killed and
    resumed from `work/<name>.pt` ends with the same weights as one that ran through.
    """
    bundle = nn.ModuleList(modules)
    average = copy.deepcopy(bundle) if ema else None
    optimizer = torch.optim.AdamW(bundle.parameters(), lr=lr, weight_decay=weight_decay)
    state_file = work / f"{name}.pt"
    start = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        bundle.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        start = state["step"]
        print(f"{name}: resumed at step {start}", flush=True)

    bundle.train()
    began = saved = time.monotonic()
    running = 0.0
    for step in range(start, steps):
        rate = _learning_rate(step, steps, lr)
        for group in optimizer.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(data), (batch_size,), generator=generator)
        value = loss(Batch(data.images[chosen], data.labels[chosen], generator, step / steps))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(bundle.parameters(), 1.0)
        optimizer.step()
        if average is not None:
            _update(average, bundle, min(ema, (1 + step) / (10 + step)))
        running = value.item() if step == start else 0.98 * running + 0.02 * value.item()
        now = time.monotonic()
        if (step + 1) % max(steps // 20, 1) == 0:
            left = (now - began) / (step + 1 - start) * (steps - step - 1)
            print(f"{name}: step {step + 1}/{steps}  loss {running:.4f}  {left:.0f} s left", flush=True)
        if now - saved > SAVE_EVERY_S:
            _save(state_file, step + 1, bundle, optimizer, average)
            saved = now
    if average is not None:
        bundle.load_state_dict(average.state_dict())
    bundle.eval()
    state_file.unlink(missing_ok=True)


def _learning_rate(step: int, steps: int, peak: float) -> float:
    warmup = max(steps // 50, 1)
    cosine = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item())
    return peak * min(1.0, (step + 1) / warmup) * cosine


@torch.no_grad()
def _update(average: nn.Module, model: nn.Module, keep: float) -> None:
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - keep)
        else:
            kept.copy_(new)


def _save(path: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if average is not None:
        state["average"] = average.state_dict()
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
