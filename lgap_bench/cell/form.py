"""The form of a composed config, before its parts are looked at: groups chosen, values given, code that may be a part."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lgap_bench import CONF
from lgap_bench.runtime.imported import dotted

# Packages that hold no part of a cell: the standard library, and Hydra's helpers that call whatever they are told.
NO_PARTS = frozenset({*sys.stdlib_module_names, "builtins", "hydra", "omegaconf"})
OPEN = "???"  # OmegaConf's value that somebody has to give
CHDIR = (
    "hydra.job.chdir=true would lay each job's records into a folder of its own: leave it false, and choose a folder with "
    "outputs=..."
)


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise ValueError for a group that is given no choice, `purifier=null`: Hydra's own error does not name it."""
    for word in overrides:
        key, given, value = word.partition("=")
        group = key.lstrip("+").partition("@")[0]
        if given and value.strip() in ("", "null") and group != "experiment" and (CONF / group).is_dir():
            raise ValueError(f"{key}={value} chooses nothing: {_mend(group)}")


def check_groups(config: Mapping[str, Any], groups: Sequence[str]) -> None:
    """Raise ValueError for a group that was taken away (`~purifier`), or whose part names no code."""
    for group in groups:
        part = config.get(group)
        if not isinstance(part, Mapping):
            raise ValueError(f"{group}={_shown(part)} is no part: {_mend(group)}")
        if "_target_" not in part:
            raise ValueError(f"{group} has no _target_, so no code: {_mend(group)}")


def check_given(raw: Mapping[str, Any]) -> None:
    """Raise ValueError for the first value that is left open, `captioner.file=???`, in what the cell uses.

    `raw` is the config before interpolations are looked up: only there a key stands where it can be set.
    """
    used = repr(raw.get("purifier"))
    for path, value in _values(raw):
        group = path.split(".")[0]
        unused = group in ("prior", "captioner") and f"${{{group}}}" not in used
        if value == OPEN and group not in ("hydra", "data", "checkpoints") and not unused:
            raise ValueError(f"{path}={OPEN} is left open: set {path}=...")


def check_targets(config: Mapping[str, Any]) -> None:
    """Raise ValueError for code that cannot be a part: no dotted name, or one of the standard library's (os.system)."""
    for path, value in _values(config):
        if path.split(".")[-1] not in ("_target_", "build"):
            continue
        if not isinstance(value, str) or "." not in dotted(value):
            raise ValueError(f"{path}={_shown(value)} is no code: write package.module.Name")
        if dotted(value).split(".")[0] in NO_PARTS:
            raise ValueError(
                f"{path}={value} is no part of a cell: name a class or function of lgap_bench or of your own package"
            )


def check_paths(config: Mapping[str, Any]) -> None:
    """Raise ValueError for paths of the top level that are none."""
    for key in ("outputs", "data", "checkpoints"):
        if not isinstance(config[key], str) or not config[key].strip():
            raise ValueError(f"{key}={_shown(config[key])} is no path: name a folder, {key}=folder")
    if config["clip"] is not None and not isinstance(config["clip"], str):
        raise ValueError(f"clip={_shown(config['clip'])} is no path: give the folder of a CLIPModel, or null")


def outputs_folder(outputs: str) -> Path:
    """The folder that `outputs` means: `~` is the home directory, as in a shell. Raises ValueError for a home unknown."""
    path = os.path.expanduser(outputs)
    if path.startswith("~"):
        raise ValueError(f"outputs={outputs} names the home of nobody here: write the path of a folder")
    return Path(path)


def with_home(words: Sequence[str]) -> list[str]:
    """Words of a command line with `outputs=~/x` written out, since Hydra makes folders below outputs by itself."""
    return [
        f"outputs={os.path.expanduser(word.removeprefix('outputs='))}" if word.startswith("outputs=~") else word
        for word in words
    ]


def _values(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping or list, with its key; of a list `key[0]`."""
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield from _values(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for place, child in enumerate(node):
            yield from _values(child, f"{path}[{place}]")
    else:
        yield path, node


def _mend(group: str) -> str:
    name = "none" if (CONF / group / "none.yaml").exists() else "empty" if group == "captioner" else None
    either = f"use {group}={name} or one that `lgap-bench run --help` lists" if name else f"use {group}=<name>"
    return either if name else f"{either}, `lgap-bench run --help` lists them"


def _shown(value: Any) -> str:
    return {None: "null", "": "''"}.get(value, str(value)) if not isinstance(value, (dict, list)) else str(value)
