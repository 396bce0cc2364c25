"""Checks of a composed config, before torch or a model is imported: each error is one line with key, value and mend."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from lgap_bench import weights as weight_files
from lgap_bench.fraction import fraction
from lgap_bench.purifier.times import timesteps

_INTERVAL = re.compile(r"(int )?([\[(])([^,]+), ([^\])]+)([\])])")


def check(cell: dict[str, Any]) -> None:
    """Raise ValueError for the first thing in a resolved cell config that cannot work."""
    _limits(cell, "")
    _budget(cell)
    _sizes(cell)
    _combinations(cell)
    _synonyms(cell)
    _weights(cell)


def within(value: object, limit: str) -> bool:
    """Whether a value obeys a limit: `[1, inf)`, `int (0, 5]`, `a | b | c`, each possibly followed by `or null`."""
    if limit.endswith(" or null"):
        return value is None or within(value, limit.removesuffix(" or null"))
    interval = _INTERVAL.fullmatch(limit)
    if interval is None:
        choices = [choice.strip() for choice in limit.split("|")]
        return (str(value).lower() if isinstance(value, bool) else value) in choices
    whole, left, low, high, right = interval.groups()
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    above = value >= float(low) if left == "[" else value > float(low)
    return above and (value <= float(high) if right == "]" else value < float(high))


def _limits(node: dict[str, Any], path: str) -> None:
    for key, limit in node.get("limits", {}).items():
        if not within(node.get(key), limit):
            raise ValueError(f"{path}{key}={node.get(key)} is not in {limit}: see the comment beside it in conf/")
    for key, child in node.items():
        if isinstance(child, dict) and key != "limits":
            _limits(child, f"{path}{key}.")


def _budget(cell: dict[str, Any]) -> None:
    eps = fraction(cell["threat"]["eps"], "threat.eps")
    if eps <= 0 or (cell["threat"]["norm"] == "linf" and eps > 1):
        raise ValueError(f"threat.eps={cell['threat']['eps']} is not in (0, 1]: pixels are in [0, 1], write 8/255")
    if "step_size" in cell["attack"] and fraction(cell["attack"]["step_size"], "attack.step_size", eps) <= 0:
        raise ValueError(f"attack.step_size={cell['attack']['step_size']} is not positive: write 2/255 or eps/4")


def _sizes(cell: dict[str, Any]) -> None:
    available = cell["dataset"].get("sizes", {}).get(cell["dataset"].get("split"))
    if available is not None and cell["n"] > available:
        raise ValueError(
            f"n={cell['n']} is more than dataset={cell['dataset_name']} has: its {cell['dataset']['split']} split holds {available} images"
        )
    purifier = cell["purifier"]
    if {"steps", "strength", "start", "spacing"} <= purifier.keys():
        timesteps(purifier["steps"], purifier["strength"], purifier["start"], purifier["spacing"])


def _combinations(cell: dict[str, Any]) -> None:
    view, attack, purifier = cell["view_name"], cell["attack_name"], cell["purifier_name"]
    if view in ("bpda", "caption") and purifier == "none":
        raise ValueError(
            f"attack={attack} sees view={view}, which needs a purifier, and purifier=none: use attack=pgd, or choose a purifier"
        )
    if view == "none" and attack != "none":
        raise ValueError(f"view=none with attack={attack}: choose view=blind, bpda or full")
    weight = cell["attack"].get("caption_weight", 0)
    if weight and not paths(purifier_captioner(cell), "weights"):
        raise ValueError(
            f"attack={attack} attacks the captioner, and purifier={purifier} has none that can be attacked: use purifier=lgap captioner={cell['dataset_name']}/blip"
        )
    if view == "blind" and weight:
        raise ValueError(
            f"view=blind with attack={attack}: a blind attacker knows no captioner, use attack=pgd or view=bpda"
        )
    _caption_target(cell)
    if view == "caption" and not weight:
        raise ValueError(f"view=caption with attack={attack}: its loss has no caption term, use attack=caption")


def _caption_target(cell: dict[str, Any]) -> None:
    target, dataset = cell["attack"].get("caption_target"), cell["dataset"]
    if target and not cell["attack"].get("caption_weight", 0):
        raise ValueError(
            f"attack.caption_target={target} with attack.caption_weight=0: no caption is attacked, set attack.caption_weight=1 or use attack=caption_nearest"
        )
    if target == "unrelated" and not dataset.get("unrelated"):
        raise ValueError(
            f"attack.caption_target=unrelated, and dataset={cell['dataset_name']} has no such sentence: set dataset.unrelated"
        )


def _synonyms(cell: dict[str, Any]) -> None:
    dataset = cell["dataset"]
    strange = sorted(set(dataset.get("synonyms") or {}) - set(dataset.get("classes") or ()))
    if strange:
        raise ValueError(f"dataset.synonyms: {strange[0]} is none of dataset.classes: write it as it stands there")


def purifier_captioner(cell: dict[str, Any]) -> dict[str, Any] | None:
    """The captioner's config inside the purifier's, if it has one."""
    return cell["purifier"].get("captioner")


def paths(node: object, name: str) -> list[str]:
    """Every value of a key of that name in a config, sorted."""
    found: set[str] = set()
    if isinstance(node, dict):
        for key, child in node.items():
            found |= {child} if key == name and isinstance(child, str) else set(paths(child, name))
    for child in node if isinstance(node, list) else ():
        found |= set(paths(child, name))
    return sorted(found)


def _weights(cell: dict[str, Any]) -> None:
    used = {key: cell[key] for key in ("classifier", "purifier")}
    for path in paths(used, "weights"):
        weight_files.inspect(path)
    if cell.get("clip"):
        _clip(cell["clip"])
    for path in paths(used, "file"):
        if not Path(path).is_file():
            raise ValueError(f"file={path} does not exist: give the path of an existing file")


def _clip(folder: str) -> None:
    try:
        weight_files.inspect(folder)
        weight_files.locate(folder, {".": "tokenizer*.json"})
    except ValueError as error:
        raise ValueError(str(error).replace("weights=", "clip=", 1)) from None


def writable(folder: Path, key: str = "outputs") -> None:
    """Make the folder and raise ValueError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"{key}={folder} cannot be written ({reason}): choose another folder with outputs=..."
        ) from None
