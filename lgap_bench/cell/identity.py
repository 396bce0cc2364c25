"""What identifies a cell's record, and the weights of its stages: everything that can change the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lgap_bench.cell.about import about, identifying
from lgap_bench.cell.config import GROUPS, Cell
from lgap_bench.cell.values import fraction
from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.code import changed, release
from lgap_bench.runtime.files import content_id
from lgap_bench.runtime.imported import dotted

NUMERICS_VERSION = 3  # raised with every change of results; tests/test_frozen.py guards it
EVALUATION = ("lgap_bench.build", "lgap_bench.evaluation.loop", "lgap_bench.evaluation.summary")
TRAINING = "lgap_bench.finetune.stage"
CONTRACT = "lgap_bench.evaluation.contract"
FRACTIONS = ("eps", "step_size")  # `48/255`, `0.188...` and `eps/4` of it are one number
NUMBERS = ("n", "seed", "score_draws", "chunk", "dtype", "tf32")
# What also changes numbers, and came later: part of an identity only where it is not as it always was.
USUAL = {"dtype_of": "all", "compile": False, "channels_last": True}


def identity(cell: Cell, device_kind: str) -> dict[str, Any]:
    """All that can change the numbers: configs with weights replaced by their content's SHA-256, no paths, no names.

    Paths stand under the keys `weights` (a folder) and `file`, in every part: those are hashed by content. What a part
    calls unidentified in its `_about_` is left out: paths of images, memory (traded for time, bitwise the same), a data
    set's `unrelated` sentence, which changes numbers only where an attack aims at it. A trained classifier is identified by
    how it is made: stages are deterministic, so the id is known before anything is trained. Code that is not this
    release's, or no longer as released, is part of it too, by a digest of what it does.
    """
    budget = fraction(cell.threat["eps"], "threat.eps")
    parts = {key: _fingerprinted(getattr(cell, key), budget) for key in (*GROUPS, *NUMBERS)} | _unusual(cell)
    stages = {stage: _fingerprinted(recipe, budget) for stage, recipe in cell.stages.items()}
    named = targets([getattr(cell, group) for group in GROUPS]) + targets(list(cell.stages.values()))
    if code := changed([*named, *EVALUATION]):
        parts["code"] = code
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
        if cell.dtype_of != USUAL["dtype_of"]:
            parts["dtype_of"] = cell.dtype_of
    if code := changed([*targets(parts), TRAINING]):
        parts["code"] = code
    return {**_fingerprinted(parts, fraction(cell.threat["eps"], "threat.eps")), **_machine(device_kind)}


def contract_identity(cell: Cell, images: int, device_kind: str, view: bool) -> dict[str, Any]:
    """All that decides whether the parts keep their promises: those that are asked, on how many images, by which code.

    The seed is none of it: a promise holds under any noise. The `view` is asked apart from the others, which are the same under any; of the attack it is then asked whether there
    is one that needs a gradient. Other than a record, what was checked holds for one release of the code: a mended part
    has to be asked again even where its numbers stay.
    """
    asked = ("dataset", "classifier", "purifier", *(("view",) if view else ()))
    budget = fraction(cell.threat["eps"], "threat.eps")
    parts = {key: _fingerprinted(getattr(cell, key), budget) for key in (*asked, "dtype", "tf32")} | _unusual(cell)
    parts["stages"] = {stage: _fingerprinted(recipe, budget) for stage, recipe in cell.stages.items()}
    parts["images"] = min(images, cell.n, cell.chunk)
    if view:
        parts["attack"] = [cell.names.view == "none", cell.names.attack == "none", about(cell.attack, "gradient_free")]
    named = targets([getattr(cell, group) for group in asked]) + targets(list(cell.stages.values()))
    return {**parts, "code": changed([*named, CONTRACT]), "release": release(), **_machine(device_kind)}


def record_id(identity_: Mapping[str, Any]) -> str:
    """The name of a record's folder: a hash of its identity."""
    return content_id(identity_)


def targets(node: Any) -> list[str]:
    """The code of every part in a config, and that which a part is told to `build`."""
    if isinstance(node, dict):
        own = [dotted(node[key]) for key in ("_target_", "build") if isinstance(node.get(key), str)]
        return own + [target for child in node.values() for target in targets(child)]
    return [target for child in node for target in targets(child)] if isinstance(node, list) else []


def at_split(node: Any, split: str) -> Any:
    """A config whose nested data sets (the caption sources that read labels) are turned to another split, all of it."""
    if not isinstance(node, dict):
        return node
    turned = {"split": split, "subset": None}
    return {key: turned[key] if key in turned else at_split(child, split) for key, child in node.items()}


def _unusual(cell: Cell) -> dict[str, Any]:
    return {key: getattr(cell, key) for key, usual in USUAL.items() if getattr(cell, key) != usual}


def _recipe(recipe: dict[str, Any] | None) -> dict[str, Any] | None:
    """A recipe without what clean images do not need."""
    if recipe is None or recipe["images"] == "purified":
        return recipe
    return {key: value for key, value in recipe.items() if key not in ("copies", "batch")}


def _machine(device_kind: str) -> dict[str, Any]:
    return {"device": device_kind, "numerics_version": NUMERICS_VERSION}


def _fingerprinted(node: Any, budget: float) -> Any:
    if isinstance(node, dict):
        content = {key: _folder(node[key]) for key in about(node, "content", ()) if isinstance(node.get(key), str)}
        limits: Mapping[str, str] = about(node, "limits", {})
        kept = {key: _real(child, limits.get(key)) for key, child in identifying(node).items()}
        return {key: _value(key, child, budget) for key, child in kept.items()} | content
    return [_fingerprinted(child, budget) for child in node] if isinstance(node, list) else node


def _real(value: Any, limit: str | None) -> Any:
    """`1` is `1.0` where a key takes real numbers: its limit is an interval, and not one of whole numbers."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and limit is not None and limit[0] in "[(" else value


def _value(key: str, value: Any, budget: float) -> Any:
    """A value as it identifies: files by content, budgets and step lengths as numbers, however they are written."""
    if key == "weights" and isinstance(value, str):
        return weight_files.fingerprint(value)
    if key == "file" and isinstance(value, str):
        return weight_files.sha256(Path(value).expanduser())
    if key in FRACTIONS and isinstance(value, str | int | float):
        return fraction(value, key, budget)
    return _fingerprinted(value, budget)


def _folder(path: str) -> str | None:
    """A folder or a file of data by content; None where it is not there, which whoever loads it says."""
    place = Path(path).expanduser()
    if place.is_file():
        return weight_files.sha256(place)
    return weight_files.folder_sha256(place) if place.is_dir() else None
