"""What must not leave the machine unasked: folders, the home's and user's name in them, and what else a config says of places."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lgap_bench.cell.about import without

PLACES = ("outputs", "data", "checkpoints")  # top-level keys that are folders of this machine and nothing else
CONTROL = ("dry", "offline")  # says nothing of a cell that was measured
PATH_KEYS = ("weights", "file", "root", "clip", "purified", "folder", "path")  # hold paths wherever they stand
EMBEDDED = "embedded:"  # weights that come with the package: a name, no place
# `/a/b/c`, `~/a/b`, `C:\\a\\b` inside a text, from its first folder to before its last part; not 8/255, not https://x/y.
INSIDE = re.compile(r"(?<![\w.:/\\~-])(?:~?/|[A-Za-z]:\\)(?:[^\s/\\:'\"(),;]+[/\\])+")
ABSOLUTE = re.compile(r"^(?:/|~|\.\.?/|[A-Za-z]:\\)")


def config(held: Mapping[str, Any], paths: bool) -> dict[str, Any]:
    """A resolved config as W&B gets it: without `_about_`; unless `paths`, of a path its last part alone."""
    plain = {key: value for key, value in without(dict(held)).items() if key not in CONTROL}
    if paths:
        return plain
    places = tuple(f"{held[key]}".rstrip("/") + "/" for key in PLACES if held.get(key))
    return {key: _cleaned(value, key, places) for key, value in plain.items() if key not in PLACES}


def text(said: str, paths: bool) -> str:
    """A sentence, its paths cut to their last part unless `paths`."""
    if paths:
        return said
    return INSIDE.sub("", said.replace(str(Path.home()) + "/", "~/").replace(str(Path.home()), "~"))


def plain(node: Any, paths: bool) -> Any:
    """Plain data, every text of it cleaned."""
    return node if paths else _cleaned(node, "", ())


def _cleaned(node: Any, key: str, places: tuple[str, ...]) -> Any:
    if isinstance(node, Mapping):
        return {name: _cleaned(child, str(name), places) for name, child in node.items()}
    if isinstance(node, list):
        return [_cleaned(child, key, places) for child in node]
    if not isinstance(node, str) or node.startswith(EMBEDDED):
        return node
    if key in PATH_KEYS or ABSOLUTE.match(node) or node.startswith(places or "\0"):
        return re.split(r"[/\\]", node.rstrip("/\\"))[-1]
    return text(node, False)
