"""The training loop of both stages: epochs that resume, the best one by validation, divergence caught by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from lgap_bench.finetune.images import Images, Say, Tell, untold
from lgap_bench.finetune.recipe import Recipe, augmented
from lgap_bench.noise import derive
from lgap_bench.runtime.files import write

EVALUATED = 500  # validation images per forward pass


@dataclass
class Progress:
    """What is known after some epochs: one line of the curve each, and which epoch was best on validation."""

    curve: list[dict[str, float]]
    best: int = -1
    best_accuracy: float = -1.0


def fit(
    model: nn.Module,
    train: Images,
    validation: Images,
    recipe: Recipe,
    folder: Path,
    name: str,
    device: str,
    say: Say,
    tell: Tell = untold,
    check: Callable[[], None] = lambda: None,
) -> Progress:
    """Train and leave the best epoch's weights in folder/model.safetensors; a killed call resumes at its last epoch.

    Batch order, augmentation and dropout of epoch e follow from (recipe.seed, e) alone, so a resumed training ends with
    the same weights; whoever calls deletes folder/state.pt once the result is safe. `check` is called before an epoch is saved, and may raise.
    Epoch 0 of the curve is the classifier before training; it is never chosen as the best.
    Raises ValueError if loss, weights or logits stop being finite; the best weights so far stay in the folder.
    """
    model.to(device).requires_grad_(True)
    optimizer = recipe.optimizer_of(model)
    state, best = folder / "state.pt", folder / "model.safetensors"
    progress = _resumed(state, model, optimizer)
    if not progress.curve:
        progress.curve.append({"epoch": 0, "loss": float("nan"), **_measured(model, train, validation, device)})
    for epoch in range(len(progress.curve) - 1, recipe.epochs):
        try:
            loss = _epoch(model, optimizer, train, recipe, epoch, device, tell)
            line = {"epoch": epoch + 1, "loss": loss, **_measured(model, train, validation, device)}
        except FloatingPointError as error:
            kept = (
                f"the weights of epoch {progress.best} are kept in {best}"
                if progress.best > 0
                else "no epoch was finished"
            )
            raise ValueError(f"{name}.lr={recipe.lr}: {error} in epoch {epoch + 1}: {kept}; lower {name}.lr") from None
        check()
        progress.curve.append(line)
        if line["validation"] > progress.best_accuracy:
            progress.best, progress.best_accuracy = epoch + 1, line["validation"]
            _keep(model, best)
        _save(state, model, optimizer, progress)
        say(
            f"{name}: epoch {epoch + 1}/{recipe.epochs}  loss {loss:.4f}  train {line['train']:.1f} %  "
            f"validation {line['validation']:.1f} %{'  best' if progress.best == epoch + 1 else ''}"
        )
    if progress.best_accuracy < progress.curve[0]["validation"]:
        say(
            f"{name}: worse than before training ({progress.curve[0]['validation']:.1f} % on validation): lower {name}.lr"
        )
    return progress


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Images,
    recipe: Recipe,
    epoch: int,
    device: str,
    tell: Tell,
) -> float:
    """One pass over the images; returns the mean loss. Raises FloatingPointError naming what is not finite."""
    seed = derive(recipe.seed, "epoch", epoch)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train.labels), generator=generator).split(recipe.batch_size)
    total = 0.0
    model.train()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.startswith("cuda") else []):
        torch.manual_seed(seed)  # dropout draws from the global generator
        for step, rows in enumerate(order):
            tell("step", epoch * len(order) + step + 1, recipe.epochs * len(order))
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(epoch + step / len(order))
            x, y = train.batch(rows, epoch, device)
            loss = recipe.loss(model(augmented(x, recipe.augment, generator)), y)
            if not bool(torch.isfinite(loss)):
                raise FloatingPointError(f"the loss is {loss.item()}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
    if not all(bool(torch.isfinite(p).all()) for p in model.state_dict().values() if p.is_floating_point()):
        raise FloatingPointError("a weight is not finite")
    return total / len(train.labels)


def _measured(model: nn.Module, train: Images, validation: Images, device: str) -> dict[str, float]:
    """Accuracy in percent on the validation images and on as many training images."""
    count = len(validation.labels)
    return {"train": _accuracy(model, train, count, device), "validation": _accuracy(model, validation, count, device)}


@torch.no_grad()
def _accuracy(model: nn.Module, images: Images, count: int, device: str) -> float:
    model.eval()
    right, rows = 0, torch.arange(min(count, len(images.labels)))
    for some in rows.split(EVALUATED):
        x, y = images.batch(some, 0, device)
        logits = model(x)
        if not bool(torch.isfinite(logits).all()):
            raise FloatingPointError("a logit is not finite")
        right += int((logits.argmax(1) == y).sum())
    return 100 * right / len(rows)


def _keep(model: nn.Module, file: Path) -> None:
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write(file, lambda stream: stream.write(save(tensors)))


def _resumed(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    if not file.exists():
        return Progress([])
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        raise ValueError(f"{file} is damaged: delete this file, the training starts anew") from None
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(state["curve"], state["best"], state["best_accuracy"])


def _save(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **vars(progress)}
    write(file, lambda stream: torch.save(state, stream))
