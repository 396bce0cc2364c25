"""What has to be trained before a cell: each stage once, however many cells share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lgap_bench.cell.about import about
from lgap_bench.cell.config import Cell
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.finetune.recipe import Recipe
from lgap_bench.finetune.stage import folder_of
from lgap_bench.forecast.tally import Kind
from lgap_bench.runtime.device import Device
from lgap_bench.runtime.files import content_id

PASS, BACK = ("classify", False), ("classify", True)


@dataclass(frozen=True)
class Training:
    """One stage that is not trained yet.

    Attributes:
        id: of its weights.
        name: `finetune of cifar10/standard`.
        images: training images.
        seconds: None where the data set does not say how many images it has.
    """

    id: str
    name: str
    images: int | None
    seconds: float | None


def left_to_train(cell: Cell, device: Device) -> dict[str, str]:
    """The stages whose weights are not there -> the id that these will have."""
    folders = {name: folder_of(cell, name, device) for name in cell.stages}
    return {name: folder.name for name, folder in folders.items() if not (folder / "summary.json").exists()}


def outlined_stages(cell: Cell) -> dict[str, str]:
    """All stages, where models are missing without which nothing can have been trained; ids tell them apart."""
    given = {"purifier": cell.purifier, "classifier": cell.classifier, "dataset": cell.dataset}
    return {name: content_id({**given, "recipe": recipe}) for name, recipe in cell.stages.items()}


def trainings(cell: Cell, stages: Mapping[str, str], row: Mapping[Kind, float]) -> list[Training]:
    """The forecast of these stages: purified images, then epochs of the classifier alone.

    A training pass takes a gradient for the weights as well as for the images: as much again as the way back does.

    Args:
        stages: name -> id.
        row: seconds of a row of `classify` with and without a gradient, of `purify`, and of what the purifier looks at.
    """
    found = []
    for name, identity in stages.items():
        recipe: Recipe = instantiate(cell.stages[name])
        sizes = about(cell.dataset, "sizes") or {}
        train, validation = sizes.get("train"), sizes.get("validation", 0)
        seconds = None
        if train is not None and row:
            train = min(train, recipe.n or train)
            step = 2 * row[BACK] - row[PASS]
            seconds = recipe.epochs * train * step + (recipe.epochs + 1) * (train + validation) * row[PASS]
            if recipe.images == "purified":
                each = sum(count for kind, count in row.items() if kind not in (PASS, BACK))
                seconds += (train * recipe.copies + validation) * each
        found.append(Training(identity, f"{name} of {cell.names.classifier}", train, seconds))
    return found


def training_kinds(purifier: Any) -> list[Kind]:
    """The kinds of work that a stage consists of."""
    looks = [("detect", False)] if getattr(purifier, "detector", None) is not None else []
    if purifier.captioner is not None and getattr(purifier, "text", "caption") == "caption":
        looks.append(("caption", False))
    return [PASS, BACK, ("purify", False), *looks]
