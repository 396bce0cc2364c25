"""What a cell needs that does not come with the package: models, files, data sets; and what of it is here. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgap_bench.cell.config import GROUPS, Cell
from lgap_bench.cell.values import ABOUT
from lgap_bench.runtime import sources
from lgap_bench.runtime import weights as weight_files

KEYS = ("weights", "file", "root")
OWN = ("files", "labels")  # of a data set: images of one's own instead of those below `root`, and a list of labels


@dataclass(frozen=True)
class Need:
    """One thing.

    Attributes:
        key: what it is in the config: `weights`, a `file`, a data set's `root`, `files` or `labels`.
        value: what the config says.
        part: whose it is, `prior of purifier=lgap`.
        source: where it comes from; None for a user's own.
    """

    key: str
    value: str
    part: str
    source: sources.Source | None

    @property
    def name(self) -> str:
        """What it is called in lists: its source's name, or what the config says."""
        return self.source.name if self.source else self.value

    def here(self) -> bool:
        """Whether it is there at all; whether it is whole, its reader says."""
        if self.key == "weights":
            return weight_files.there(self.value)
        path = Path(self.value).expanduser()
        if self.key == "file":
            return path.is_file()
        if self.key in OWN:
            return path.exists()
        return (path / (self.source.holds if self.source else ".")).is_dir()

    def mend(self) -> str:
        """What to do about it where it is missing."""
        if self.key in OWN:
            return f"give the path that exists, dataset.{self.key}=..."
        if self.key != "root":
            return sources.mend(self.value)
        if self.source is None:
            return "give the folder of the images"
        by_hand = f"it has to be got by hand, into {self.value}: {self.source.at}"
        return by_hand if self.source.kind == "hand" else f"lgap-bench fetch {self.name}"


def needs(cell: Cell) -> list[Need]:
    """Everything, each thing once, in the order in which the cell's parts are built."""
    found: dict[str, Need] = {}
    for group in GROUPS:
        title = f"{group}={getattr(cell.names, group)}"
        for need in _of(getattr(cell, group), title, title, cell.names.dataset):
            found.setdefault(need.value, need)
    if cell.clip:
        found.setdefault(cell.clip, Need("weights", cell.clip, "clip", sources.of(cell.clip)))
    return list(found.values())


def missing(cell: Cell) -> list[Need]:
    """What of it is not here."""
    return [need for need in needs(cell) if not need.here()]


def _of(node: Any, part: str, title: str, dataset: str) -> Iterator[Need]:
    if isinstance(node, list):
        for child in node:
            yield from _of(child, part, title, dataset)
    if not isinstance(node, dict):
        return
    own = [key for key in OWN if part.startswith("dataset=") and isinstance(node.get(key), str)]
    yield from (Need(key, node[key], part, None) for key in own)
    for key, child in node.items():
        if key == "root" and "files" in own:  # not read then
            continue
        if key in KEYS and isinstance(child, str) and not child.startswith(weight_files.EMBEDDED):
            yield Need(key, child, part, sources.manifest().get(dataset) if key == "root" else sources.of(child))
        elif key != ABOUT:
            inner = f"{key} of {title}" if part == title and isinstance(child, dict) else part
            yield from _of(child, inner, title, dataset)
