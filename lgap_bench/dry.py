"""A cell checked without its weights and data: names, shapes, ranges, and what it would need. Nothing is measured."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lgap_bench import weights as weight_files
from lgap_bench.cell import DESCRIBING, STAGES
from lgap_bench.check import check, paths

HYDRAS = ("_target_", "_convert_", "_recursive_", "_partial_", "_args_")  # keys that it takes for itself


def dry(cell: dict[str, Any]) -> str:
    """What the cell is and what it needs, in two lines. Raises ValueError for the first thing that could not work."""
    check(cell)
    takes(cell)
    _shapes(cell)
    stages = "".join(f", {name} {cell[f'{name}_name']}" for name in STAGES if cell[name] is not None)
    threat = cell["threat"]
    needed = sorted(set(paths(cell, "weights") + paths(cell, "file") + paths(cell, "root")))
    missing = [path for path in needed if not _there(path)]
    return (
        f"{cell['experiment_name'] or 'cell'}: {cell['purifier_name']} + {cell['classifier_name']}{stages} on "
        f"{cell['dataset_name']}, {cell['attack_name']} (view {cell['view'].get('shown', cell['view_name'])}), {threat['norm']} {threat['eps']}, n = {cell['n']}\n"
        f"  dry check passed; missing here: {', '.join(missing) or 'nothing'}"
    )


def takes(cell: dict[str, Any]) -> None:
    """Raise ValueError for the first part whose code does not exist or does not take the keys that it is given."""
    for key, node in _parts(cell, ""):
        _fits(key, node)


def _there(path: str) -> bool:
    if path.startswith(weight_files.EMBEDDED):
        return (weight_files.ZOO / path.removeprefix(weight_files.EMBEDDED)).exists()
    return Path(path).expanduser().exists()


def _parts(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every config that builds something, with its key."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, child in node.items():
            yield from _parts(child, f"{path}.{key}" if path else key)


def _target(name: str) -> Callable[..., Any]:
    module, attribute = name.rsplit(".", 1)
    return getattr(importlib.import_module(module), attribute)


def _fits(key: str, node: dict[str, Any]) -> None:
    """The code exists and takes these keys."""
    try:
        signature = inspect.signature(_target(node["_target_"]))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{key}._target_={node['_target_']} names no code ({error}): mend the name") from None
    given = {name: None for name in node if name not in HYDRAS and name not in DESCRIBING}
    if key == "view":
        given |= {"defense": None, "max_rows": None}
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ValueError(
            f"{key}: {node['_target_']} does not take these keys ({error}): mend the key, or the YAML file"
        ) from None


def _shapes(cell: dict[str, Any]) -> None:
    """The classifier's architecture, with random weights, on one empty image: as many logits as there are classes."""
    import torch

    dataset, classifier = cell["dataset"], cell["classifier"]
    module = importlib.import_module(classifier["_target_"].rsplit(".", 1)[0])
    if not hasattr(module, "skeleton"):
        return
    given = {k: v for k, v in classifier.items() if k not in HYDRAS and k not in DESCRIBING}
    device = "meta" if not paths(classifier, "weights") else "cpu"  # shapes without numbers: nothing is allocated
    with torch.device(device), torch.no_grad():
        logits = module.skeleton(**given).eval()(torch.empty(1, *dataset["shape"]))
    classes = dataset.get("class_count") or len(dataset["classes"])
    if tuple(logits.shape) != (1, classes):
        raise ValueError(
            f"classifier={cell['classifier_name']} gives {logits.shape[-1]} logits for an image of {dataset['shape']}, "
            f"dataset={cell['dataset_name']} has {classes} classes: choose a classifier of that data set"
        )
