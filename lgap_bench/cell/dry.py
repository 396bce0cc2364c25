"""A cell checked without its weights and data: names, shapes, ranges, and what it would need. Nothing is measured."""

from __future__ import annotations

import importlib
from pathlib import Path

from lgap_bench.cell.about import about
from lgap_bench.cell.check import check
from lgap_bench.cell.config import Cell
from lgap_bench.cell.instantiate import arguments, check_signatures
from lgap_bench.cell.rules import paths
from lgap_bench.runtime import weights as weight_files


def dry(cell: Cell) -> str:
    """What the cell is and what it needs, in two lines. Raises ValueError for the first thing that could not work."""
    check(cell)
    check_signatures(cell)
    _check_shapes(cell)
    names, threat = cell.names, cell.threat
    stages = "".join(f", {stage} {getattr(names, stage)}" for stage in cell.stages)
    needed = sorted({path for key in ("weights", "file", "root") for path in paths(cell.plain(), key)})
    missing = [path for path in needed if not _exists(path)]
    return (
        f"{names.experiment or 'cell'}: {names.purifier} + {names.classifier}{stages} on "
        f"{names.dataset}, {names.attack} (view {about(cell.view, 'shown', names.view)}), {threat['norm']} {threat['eps']}, n = {cell.n}\n"
        f"  dry check passed; missing here: {', '.join(missing) or 'nothing'}"
    )


def _exists(path: str) -> bool:
    if path.startswith(weight_files.EMBEDDED):
        return (weight_files.ZOO / path.removeprefix(weight_files.EMBEDDED)).exists()
    return Path(path).expanduser().exists()


def _check_shapes(cell: Cell) -> None:
    """The classifier's architecture, with random weights, on one empty image: as many logits as there are classes."""
    import torch

    classifier, shape = cell.classifier, about(cell.dataset, "shape")
    module = importlib.import_module(classifier["_target_"].rsplit(".", 1)[0])
    if not hasattr(module, "skeleton") or shape is None:  # only the images themselves say their size
        return
    device = "meta" if not paths(classifier, "weights") else "cpu"  # shapes without numbers: nothing is allocated
    with torch.device(device), torch.no_grad():
        logits = module.skeleton(**arguments(classifier)).eval()(torch.empty(1, *shape))
    classes = about(cell.dataset, "class_count") or len(cell.dataset.get("classes") or ())
    if classes and tuple(logits.shape) != (1, classes):
        raise ValueError(
            f"classifier={cell.names.classifier} gives {logits.shape[-1]} logits for an image of {shape}, "
            f"dataset={cell.names.dataset} has {classes} classes: choose a classifier of that data set"
        )
