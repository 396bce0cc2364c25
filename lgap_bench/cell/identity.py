"""What identifies a cell's record, and the weights of its stages: everything that can change the numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lgap_bench.cell.about import about, identifying
from lgap_bench.cell.config import GROUPS, Cell
from lgap_bench.runtime import weights as weight_files

NUMERICS_VERSION = 3  # raised with every change of results; tests/test_frozen.py guards it
NUMBERS = ("n", "seed", "score_draws", "chunk", "dtype", "tf32")


def identity(cell: Cell, device_kind: str) -> dict[str, Any]:
    """All that can change the numbers: configs with weights replaced by their content's SHA-256, no paths, no names.

    Paths stand under the keys `weights` (a folder) and `file`, in every part: those are hashed by content. What a part
    calls unidentified in its `_about_` is left out: paths of images, memory (traded for time, bitwise the same), a data
    set's `unrelated` sentence, which changes numbers only where an attack aims at it. A trained classifier is identified by
    how it is made: stages are deterministic, so the id is known before anything is trained.
    """
    parts = {key: _fingerprinted(getattr(cell, key)) for key in (*GROUPS, *NUMBERS)}
    stages = {stage: _fingerprinted(recipe) for stage, recipe in cell.stages.items()}
    if keys := about(
        cell.attack, "made_of"
    ):  # keys are sorted for the identity, and members meet whom those before left
        parts["order"] = [name for key in keys for name in cell.attack[key]]
    if cell.attack.get("caption_target") == "unrelated":
        parts["unrelated"] = cell.dataset["unrelated"]
    if cell.purifier.get("as_released"):
        parts["max_rows"] = cell.max_rows  # the defect depends on an image's place in a pass
    if cell.clip:
        parts["clip"] = weight_files.fingerprint(cell.clip)
    return {**parts, **stages, **_machine(device_kind)}


def stage_identity(cell: Cell, name: str, device_kind: str) -> dict[str, Any]:
    """All that can change a stage's weights (`train`, `finetune`) or the images it trains on (`purified`).

    What only evaluation looks at (the split, subset, captions and synonyms of the data set) is no part of it, nor the dtype
    where nothing is purified: classifiers are trained in float32.
    """
    evaluation = ("split", "subset", "caption", "synonyms")
    dataset = {key: value for key, value in cell.dataset.items() if key not in evaluation}
    parts: dict[str, Any] = {"stage": name, "dataset": dataset, "tf32": cell.tf32}
    finetune = cell.finetune or {}
    if name == "purified":
        parts["batch"] = finetune["batch"]
    else:
        parts |= {"classifier": cell.classifier, "train": _recipe(cell.train)}
    if name == "finetune":
        parts["finetune"] = _recipe(finetune)
    if name == "purified" or (name == "finetune" and finetune["images"] == "purified"):
        parts |= {"purifier": at_split(cell.purifier, "train"), "dtype": cell.dtype}
    return {**_fingerprinted(parts), **_machine(device_kind)}


def record_id(identity_: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 of an identity."""
    return hashlib.sha256(json.dumps(identity_, sort_keys=True).encode()).hexdigest()[:16]


def at_split(node: Any, split: str) -> Any:
    """A config whose nested data sets (the caption sources that read labels) are turned to another split, all of it."""
    if not isinstance(node, dict):
        return node
    turned = {"split": split, "subset": None}
    return {key: turned[key] if key in turned else at_split(child, split) for key, child in node.items()}


def _recipe(recipe: dict[str, Any] | None) -> dict[str, Any] | None:
    """A recipe without what clean images do not need."""
    if recipe is None or recipe["images"] == "purified":
        return recipe
    return {key: value for key, value in recipe.items() if key not in ("copies", "batch")}


def _machine(device_kind: str) -> dict[str, Any]:
    return {"device": device_kind, "numerics_version": NUMERICS_VERSION}


def _fingerprinted(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _content(key, child) if key in ("weights", "file") else _fingerprinted(child)
            for key, child in identifying(node).items()
        }
    return [_fingerprinted(child) for child in node] if isinstance(node, list) else node


def _content(key: str, path: Any) -> Any:
    if not isinstance(path, str):
        return path
    return weight_files.fingerprint(path) if key == "weights" else weight_files.sha256(Path(path).expanduser())
