"""Parts from their configs: `_target_` names the code, everything but `_about_` is its arguments."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lgap_bench.cell.about import without
from lgap_bench.cell.config import Cell
from lgap_bench.cell.kinds import fits, worded
from lgap_bench.cell.values import ABOUT
from lgap_bench.runtime.imported import imported

HYDRAS = ("_target_", "_convert_", "_recursive_", "_partial_", "_args_")  # keys that Hydra takes for itself


def instantiate(config: Mapping[str, Any], **given: Any) -> Any:
    """The part that a config names; parts inside it are built first. `given` are arguments that no config can hold."""
    from hydra.utils import instantiate as build

    return build(without(config), **given)


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that reach a part's constructor."""
    return {key: value for key, value in config.items() if key not in (*HYDRAS, ABOUT)}


def check_signatures(cell: Cell) -> None:
    """Raise ValueError for the first part whose code does not exist or does not take the keys that it is given.

    Imports the parts' modules, and with them torch.
    """
    for key, node in _parts(cell.plain(), ""):
        check_signature(key, node)


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


def check_signature(key: str, node: Mapping[str, Any]) -> None:
    """Raise ValueError, naming `key`, unless the code of one part, and what it is told to build, exists and takes its keys."""
    try:
        target = _target(node["_target_"])
        signature = inspect.signature(target)
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"{key}._target_={node['_target_']} names no code ({error}): mend the name") from None
    if isinstance(node.get("build"), str):
        imported(node["build"], f"{key}.build")
    given = dict.fromkeys(arguments(node))
    if key == "view":
        given |= {"defense": None, "max_rows": None}
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ValueError(
            f"{key}: {node['_target_']} does not take these keys ({error}): mend the key, or the YAML file"
        ) from None
    for name, hint in _hints(target).items():
        if name in node and not fits(node[name], hint):
            value = "null" if node[name] is None else repr(node[name])
            raise ValueError(f"{key}.{name}={value} is not {worded(hint)}: mend the value, or the YAML file")


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """The types of a part's arguments; none where they cannot be looked up (a name imported for type checkers alone)."""
    try:
        return typing.get_type_hints(getattr(target, "__init__", target) if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):
        return {}
