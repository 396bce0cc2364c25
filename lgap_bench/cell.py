"""A cell: the resolved config of one number of a table, its identity, and its parts built from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lgap_bench import weights as weight_files
from lgap_bench.limit import refuse_beyond

NUMERICS_VERSION = 3  # raised with every change of results; tests/test_frozen.py guards it
GROUPS = ("dataset", "classifier", "purifier", "attack", "view", "threat")
STAGES = ("train", "finetune")  # in this order; both are null for a classifier that is used as it comes
# Keys that describe a part rather than build it, and those that change no number: paths, and memory for time.
DESCRIBING = (
    "limits",
    "needs",
    "sampling",
    "evaluated",
    "shape",
    "sizes",
    "class_count",
    "space",
    "noise_density",
    "whole",
    "made_of",
    "shown",
)
UNIDENTIFIED = (*DESCRIBING, "memory", "root", "purified", "unrelated")
NUMBERS = ("n", "seed", "score_draws", "chunk", "dtype", "tf32")


def resolve(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """The config as plain data, with the chosen name of every group beside it (`purifier_name`, ...).

    The top-level `prior` and `captioner` are dropped: what a purifier uses of them stands inside it by interpolation,
    so a part that is not used is neither loaded nor counted in the identity.
    """
    _same_space(cfg, choices)
    threat = OmegaConf.to_container(cfg.threat, resolve=True)
    assert isinstance(threat, dict)
    refuse_beyond(threat, "threat.")  # other parts look up what the norm's name says
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    _chosen_by_group(plain)
    cell = {str(key): value for key, value in plain.items() if key not in ("prior", "captioner", "experiment", "hydra")}
    for group in (*GROUPS, *STAGES, "subset"):
        cell[f"{group}_name"] = choices[group]
    if _reduced(cell["attack"]):
        cell["attack_name"] = f"reduced_{choices['attack']}"
    for stage in STAGES:
        if "_target_" not in cell[stage]:  # the choice `none`
            cell[stage] = None
    cell["experiment_name"] = experiment(choices)
    captioner = cell["purifier"].get("captioner")
    same = captioner == plain.get("captioner")
    cell["captioner_name"] = None if captioner is None else choices["captioner"] if same else captioner["_target_"]
    return cell


def _reduced(attack: Mapping[str, Any]) -> bool:
    """Whether an attack has less of something than what bears its name: with fewer steps or draws it is another one."""
    numbers = ((attack[key], number) for key, number in attack.get("whole", {}).items())
    return any(isinstance(own, int | float) and number is not None and own < number for own, number in numbers)


def _same_space(cfg: DictConfig, choices: Mapping[str, str]) -> None:
    """Refuse a latent prior where a pixel one is needed, before the purifier's keys are looked up in it."""
    needed, space = cfg.purifier.get("needs", {}).get("space"), cfg.prior.get("space")
    if needed is not None and needed != space:
        raise ValueError(
            f"purifier={choices['purifier']} needs a {needed} prior, and prior={choices['prior']} is a {space} one: use prior={choices['dataset']}/{needed}"
        )
    seen = cfg.view.get("needs", {}).get("space")
    if seen not in (None, space):
        raise ValueError(
            f"view={choices['view']} with purifier={choices['purifier']}: it needs a purifier with a {seen} prior, use purifier=diffpure or coup, or another view"
        )


def _chosen_by_group(plain: Mapping[Any, Any]) -> None:
    """Refuse a part written as a value: `purifier.sampler=ode` sets the word, `purifier/sampler=ode` chooses the part."""
    groups = {
        "prior": "prior",
        "captioner": "captioner",
        "guidance": "purifier/guidance",
        "sampler": "purifier/sampler",
    }
    for owner in ("purifier", "view"):
        for key in groups.keys() & plain[owner].keys():
            value, group = plain[owner][key], groups[key] + ("@view.sampler" if owner == "view" else "")
            if not isinstance(value, dict) and not (value is None and key in ("guidance", "captioner")):
                text = "null" if value is None else value
                raise ValueError(f"{owner}.{key}={text} is no part: choose one by its group, {group}=<name>")


def experiment(choices: Mapping[str, str]) -> str | None:
    """The experiment's name, from `experiment=lgap/table1/lgap` or from `+experiment/lgap/table1=lgap`."""
    nested = [
        f"{key.removeprefix('experiment/')}/{name}" for key, name in choices.items() if key.startswith("experiment/")
    ]
    return nested[0] if nested else choices.get("experiment")


def identity(cell: dict[str, Any], device_class: str) -> dict[str, Any]:
    """All that can change the numbers: configs with weights replaced by their content's SHA-256, no paths, no names.

    Paths stand under the keys `weights` (a folder) and `file`, in every part: those are hashed by content.
    What describes a part (`limits`, ...), `memory` (traded for time, bitwise the same), `root` and `purified` (where
    images lie) are left out wherever they stand, and so is `unrelated`, a sentence that changes numbers only where an
    attack aims at it. A trained classifier is identified by how it is made: stages are
    deterministic, so the id is known before anything is trained.
    """
    parts = {key: _fingerprinted(cell[key]) for key in (*GROUPS, *NUMBERS)}
    stages = {stage: _fingerprinted(cell[stage]) for stage in STAGES if cell[stage] is not None}
    if "made_of" in cell["attack"]:  # keys are sorted for the identity, and members meet whom those before them left
        parts["order"] = [name for key in cell["attack"]["made_of"] for name in cell["attack"][key]]
    if cell["attack"].get("caption_target") == "unrelated":
        parts["unrelated"] = cell["dataset"]["unrelated"]
    if cell["purifier"].get("as_released"):
        parts["max_rows"] = cell["max_rows"]  # the defect depends on an image's place in a pass
    if cell.get("clip"):
        parts["clip"] = weight_files.fingerprint(cell["clip"])
    return {**parts, **stages, **_machine(device_class)}


def stage_identity(cell: Mapping[str, Any], name: str, device_class: str) -> dict[str, Any]:
    """All that can change a stage's weights (`train`, `finetune`) or the images it trains on (`purified`).

    What only evaluation looks at (the split, subset, captions and synonyms of the data set) is no part of it, nor the dtype
    where nothing is purified: classifiers are trained in float32.
    """
    evaluation = ("split", "subset", "caption", "synonyms")
    dataset = {key: value for key, value in cell["dataset"].items() if key not in evaluation}
    parts: dict[str, Any] = {"stage": name, "dataset": dataset, "tf32": cell["tf32"]}
    if name == "purified":
        parts["batch"] = cell["finetune"]["batch"]
    else:
        parts |= {"classifier": cell["classifier"], "train": _recipe(cell["train"])}
    if name == "finetune":
        parts["finetune"] = _recipe(cell["finetune"])
    if name == "purified" or (name == "finetune" and cell["finetune"]["images"] == "purified"):
        parts |= {"purifier": at_split(cell["purifier"], "train"), "dtype": cell["dtype"]}
    return {**_fingerprinted(parts), **_machine(device_class)}


def _recipe(recipe: dict[str, Any] | None) -> dict[str, Any] | None:
    """A recipe without what clean images do not need."""
    if recipe is None or recipe["images"] == "purified":
        return recipe
    return {key: value for key, value in recipe.items() if key not in ("copies", "batch")}


def at_split(node: Any, split: str) -> Any:
    """A config whose nested data sets (the caption sources that read labels) are turned to another split, all of it."""
    if not isinstance(node, dict):
        return node
    turned = {"split": split, "subset": None}
    return {key: turned[key] if key in turned else at_split(child, split) for key, child in node.items()}


def _machine(device_class: str) -> dict[str, Any]:
    return {"device": device_class, "numerics_version": NUMERICS_VERSION}


def record_id(identity_: dict[str, Any]) -> str:
    """16 hex digits of the SHA-256 of an identity."""
    return hashlib.sha256(json.dumps(identity_, sort_keys=True).encode()).hexdigest()[:16]


def _fingerprinted(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _content(key, child) if key in ("weights", "file") else _fingerprinted(child)
            for key, child in node.items()
            if key not in UNIDENTIFIED
        }
    return [_fingerprinted(child) for child in node] if isinstance(node, list) else node


def _content(key: str, path: Any) -> Any:
    if not isinstance(path, str):
        return path
    return weight_files.fingerprint(path) if key == "weights" else weight_files.sha256(Path(path))


@dataclass(frozen=True)
class Parts:
    """What a cell is composed of, built and on its device."""

    dataset: Any
    defense: Any
    attack: Any
    view: Any
    threat: Any
    clip: Any = None


def build(cell: dict[str, Any], device: str, device_class: str, quiet: bool = False) -> Parts:
    """Instantiate every part from its `_target_`; purifiers bring their prior and captioner inside their own config.

    A classifier that has to be trained first is trained here, or loaded where it was trained before.
    """
    import torch

    from lgap_bench.defense import Defense
    from lgap_bench.finetune.stage import trained

    dtype = getattr(torch, cell["dtype"])
    # What can fail quickly is built before a classifier is trained for hours.
    dataset, attack, threat = (part(cell[key]) for key in ("dataset", "attack", "threat"))
    classifier = trained(cell, part(cell["classifier"]), device, device_class, quiet)
    purifier = part(cell["purifier"])
    if guided_by_trained(cell):
        purifier.guidance.classifier = classifier
    defense = Defense(purifier, classifier).to(device=device, dtype=dtype)
    # A memory layout: the convolutions' backward pass takes a fifth less time.
    defense = defense.to(memory_format=torch.channels_last)
    return Parts(
        dataset=dataset,
        defense=defense,
        attack=attack,
        view=part(cell["view"], defense=defense, max_rows=cell["max_rows"]),
        threat=threat,
        clip=_clip(cell.get("clip"), device),
    )


def guided_by_trained(cell: Mapping[str, Any]) -> bool:
    """Whether the purifier's guidance asks the classifier that the cell trains: then it is that one, and no second network.

    With a fine-tuning stage there is no such classifier: guidance asks the one before, purified images are needed for it.
    """
    guidance = cell["purifier"].get("guidance") or {}
    asked = cell["train"] is not None and cell["finetune"] is None
    return asked and guidance.get("classifier") == cell["classifier"]


def _clip(folder: str | None, device: str) -> Any:
    if not folder:
        return None
    from lgap_bench.metric.clip import load

    return load(folder).to(device)


def part(config: dict[str, Any], **given: Any) -> Any:
    """hydra.utils.instantiate without the keys that describe rather than build."""
    from hydra.utils import instantiate

    return instantiate(_built(config), **given)


def _built(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _built(child) for key, child in node.items() if key not in DESCRIBING}
    return [_built(child) for child in node] if isinstance(node, list) else node
