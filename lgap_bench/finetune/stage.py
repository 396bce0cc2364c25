"""What comes before a cell: its classifier trained from scratch and fine-tuned, each made once and kept by identity.

outputs/weights/<id>/   identity.json       all that can change the weights; <id> is its hash
                        model.safetensors   the best epoch's weights
                        curve.csv, .png     loss and accuracies by epoch
                        summary.json        best epoch, accuracies, SHA-256 of the weights; written last
                        state.pt            while it trains: what a killed training resumes from
                        progress.txt        while it trains: the last line, for those who wait for it
outputs/purified/<id>/  purified training and validation images
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from lgap_bench.cell.config import Cell
from lgap_bench.cell.identity import at_split, record_id, stage_identity
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.finetune.fit import Progress, fit
from lgap_bench.finetune.images import Images, Say, Tell, clean, purified, require_same, untold
from lgap_bench.finetune.recipe import Recipe
from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.device import Device
from lgap_bench.runtime.files import tidy, write_json, write_text
from lgap_bench.runtime.lease import Lease, lease


def trained(cell: Cell, classifier: nn.Module, device: Device, say: Say, tell: Tell = untold) -> nn.Module:
    """The classifier after the cell's stages; what was made before, here or by another job, is loaded.

    `say` is told what is trained and how it goes, `tell` of each step and image.
    """
    if cell.finetune is not None and cell.finetune["purified"]:
        require_same(Path(cell.finetune["purified"]), stage_identity(cell, "purified", device.kind), theirs=True)
    for name in cell.stages:
        folder = make(cell, name, classifier, device, say, tell)
        classifier.load_state_dict(load_file(folder / "model.safetensors"))
    return classifier


def folder_of(cell: Cell, name: str, device: Device) -> Path:
    """Where a stage's weights lie."""
    return cell.outputs / "weights" / record_id(stage_identity(cell, name, device.kind))


def summaries(cell: Cell, device: Device) -> dict[str, Any]:
    """What a cell's summary says of its stages: best epoch, validation accuracy and the weights' SHA-256."""
    return {name: _summary(folder_of(cell, name, device)) for name in cell.stages}


def make(cell: Cell, name: str, classifier: nn.Module, device: Device, say: Say, tell: Tell = untold) -> Path:
    """Train one stage unless its weights are there; returns their folder. Two jobs that ask at once make it once.

    Whoever waits for the other hears how far it is. Raises ValueError where this process was stopped for so long that
    another took the training over.
    """
    folder, what = folder_of(cell, name, device), f"{name} of {cell.names.classifier}"
    told = folder / "progress.txt"
    with lease(cell.outputs, folder.name, what, lambda: _line(told)) as held:
        if (folder / "summary.json").exists():
            _summary(folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            tidy(folder)
            _run(cell, name, classifier, folder, device, _telling(say, told), tell, lambda: _require(held, what))
        told.unlink(missing_ok=True)
    return folder


def _run(
    cell: Cell,
    name: str,
    classifier: nn.Module,
    folder: Path,
    device: Device,
    say: Say,
    tell: Tell,
    check: Callable[[], None],
) -> None:
    """`check` raises where the training is no longer this process' to write."""
    began = time.monotonic()
    recipe: Recipe = instantiate(cell.stages[name])
    write_json(folder / "identity.json", stage_identity(cell, name, device.kind))
    if name == "train":
        _fresh(classifier, recipe.seed)
    images = {split: _images(cell, recipe, split, device, say, tell) for split in ("train", "validation")}
    progress = fit(
        classifier, images["train"], images["validation"], recipe, folder, name, device.torch, say, tell, check
    )
    _curve(folder, progress, f"{name} of {cell.names.classifier}: {getattr(cell.names, name)}")
    summary = {
        "stage": name,
        "id": folder.name,
        "best_epoch": progress.best,
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "validation": progress.best_accuracy,
        "validation_before": progress.curve[0]["validation"],
        "seconds": round(time.monotonic() - began, 1),
        "sha256": weight_files.sha256(folder / "model.safetensors"),
    }
    write_json(folder / "summary.json", summary)
    (folder / "state.pt").unlink(missing_ok=True)


def _require(held: Lease, what: str) -> None:
    if not held.held:
        raise ValueError(
            f"{what}: this process was stopped for so long that another one took over: call again, it goes on where that one is"
        )


def _telling(say: Say, file: Path) -> Say:
    """Say it, and leave it in a file for those who wait."""

    def both(text: str) -> None:
        write_text(file, text + "\n")
        say(text)

    return both


def _line(file: Path) -> str | None:
    """What another process said last, or None."""
    try:
        return file.read_text().strip() or None
    except OSError:
        return None


def _fresh(classifier: nn.Module, seed: int) -> None:
    """Initial weights that depend on the recipe's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules: list[Any] = list(classifier.modules())
        for module in modules:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif hasattr(module, "reset_parameters"):
                module.reset_parameters()


def _images(cell: Cell, recipe: Recipe, split: str, device: Device, say: Say, tell: Tell) -> Images:
    """One split as the recipe wants it; `recipe.n` cuts the training images, validation is used whole."""
    data = instantiate({**cell.dataset, "split": split})
    if data.present is not None:
        raise ValueError(
            f"finetune and train know one class per image, and dataset={cell.names.dataset} has several: use finetune=none train=none"
        )
    if recipe.images == "clean":
        return clean(data, recipe.n if split == "train" else None)
    identity = stage_identity(cell, "purified", device.kind)
    folder = Path(recipe.purified or cell.outputs / "purified" / record_id(identity))

    def purifier() -> Any:
        dtype = getattr(torch, cell.dtype)
        return instantiate(at_split(cell.purifier, split)).to(device=device.torch, dtype=dtype).eval()

    # Validation is purified once, whatever the training images are.
    n, copies = (recipe.n, recipe.copies) if split == "train" else (None, 1)
    with lease(cell.outputs, f"{folder.name}-{split}", f"purified {split} images"):
        return purified(
            data, purifier, folder, identity, n, copies, recipe.batch, cell.max_rows, device.torch, say, tell
        )


def _summary(folder: Path) -> dict[str, Any]:
    """A finished stage's summary. Raises ValueError if its weights are not those it was written for."""
    file = folder / "model.safetensors"
    try:
        summary = json.loads((folder / "summary.json").read_text())
        whole = weight_files.sha256(file) == summary["sha256"]
    except (OSError, ValueError, KeyError):
        whole = False
    if not whole:
        raise ValueError(f"trained weights in {folder} are damaged or missing: delete this folder, they are made again")
    return summary


def _curve(folder: Path, progress: Progress, title: str) -> None:
    """curve.csv and curve.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with (folder / "curve.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["epoch", "loss", "train", "validation"])
        writer.writeheader()
        writer.writerows(progress.curve)
    epochs = [line["epoch"] for line in progress.curve]
    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot(epochs[1:], [line["loss"] for line in progress.curve[1:]], color="#222222")
    left.set(xlabel="epoch", ylabel="training loss", title=title)
    for key, color in (("train", "#999999"), ("validation", "#1b7837")):
        right.plot(epochs, [line[key] for line in progress.curve], color=color, label=key)
    right.plot([progress.best], [progress.best_accuracy], "o", color="#1b7837", label=f"kept: epoch {progress.best}")
    right.set(xlabel="epoch", ylabel="accuracy, %")
    right.legend(fontsize=8)
    figure.savefig(folder / "curve.png", dpi=100)
