"""A cell from the config.yaml of a record: on another machine, by another release. Without torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from lgap_bench import CONF
from lgap_bench.cell.config import GROUPS, ROWS, STAGES, Cell, Config, Names
from lgap_bench.cell.identity import targets

NOT_PARTS = ("hydra", "logger")  # folders of conf/ whose code is no part of a cell
TARGET = re.compile(r"^\s*_target_:\s*([\w.]+)", re.MULTILINE)


def restored(plain: Mapping[str, Any]) -> Cell:
    """The cell that a record's config describes, whole again (no shard); what an older release did not know has its default.

    Raises ValueError for a config that lacks a part.
    """
    missing = [key for key in GROUPS if not isinstance(plain.get(key), Mapping)]
    if missing:
        raise ValueError(
            f"config.yaml has no {missing[0]}: it is no record's, or of a release that is not read any more"
        )
    names: dict[str, Any] = {each.name: plain.get(f"{each.name}_name") for each in fields(Names)}
    parts: dict[str, Any] = {key: plain.get(key) for key in (*GROUPS, *STAGES)}
    given = {key: value for key, value in plain.items() if key not in parts and not key.endswith("_name")}
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())
    own = {each.name for each in fields(Cell)} - parts.keys() - {"names", "numbers"}
    held = {**{key: given.get(key, defaults.get(key)) for key in own}, "shard": None, "shards": 1}
    held["auto_rows"] = held["max_rows"] == "auto"  # asked for here: a record has the number that was found
    if held["auto_rows"]:
        held["max_rows"] = ROWS
    numbers = {**given, **held, "_about_": given.get("_about_") or {}}
    return Cell(**parts, names=Names(**names), numbers=numbers, **{**held, "outputs": Path(held["outputs"])})


def require_known(plain: Mapping[str, Any], trusted: Collection[str] = ()) -> None:
    """Raise ValueError for code that a record names and this release does not offer as a part.

    A config builds whatever it names, and a record may come from anybody. `trusted`: modules and packages beside it.
    """
    if (hidden := _interpolated(plain)) is not None:  # a value that is computed when it is built could name anything
        raise ValueError(f"config.yaml says {hidden[:60]}, which no record does: it was edited, ask for another")
    known = offered()
    for name in targets(dict(plain)):
        if name.startswith("lgap_bench.own."):
            raise ValueError(
                f"{name} stands for a part that lived in a Python process, and a config cannot build it: make it a part of its own (docs/extending.md) and measure that"
            )
        if name not in known and not any(name.startswith(f"{package}.") for package in trusted):
            package = name.split(".")[0]
            raise ValueError(
                f"the record names {name}, which is none of this release's parts: if you know that code, install it and allow it with trust={package}"
            )


def _interpolated(node: Any) -> str | None:
    """The first value that Hydra would compute, `${...}`; the config of a record is resolved."""
    if isinstance(node, str):
        return node if "${" in node else None
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    return next((found for child in children if (found := _interpolated(child)) is not None), None)


def offered() -> set[str]:
    """Every `_target_` of conf/: the code that a cell of this release can be made of."""
    found = [file for file in CONF.rglob("*.yaml") if file.relative_to(CONF).parts[0] not in NOT_PARTS]
    return {name for file in found for name in TARGET.findall(file.read_text())}


def part(group: str, name: str) -> Config:
    """A part as its YAML says, for a cell that is made without Hydra; `defaults` are Hydra's."""
    held: Config = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    return {key: value for key, value in held.items() if key != "defaults"}
