"""A cell checked without being measured: names, shapes, ranges, the headers of its weights, and what of it is missing here."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgap_bench.cell.about import about
from lgap_bench.cell.check import check
from lgap_bench.cell.config import Cell
from lgap_bench.cell.instantiate import arguments, check_signatures
from lgap_bench.cell.needs import missing
from lgap_bench.cell.rules import paths
from lgap_bench.runtime import weights as weight_files

CHECKPOINTS = (".pt", ".pth")  # files of classifiers, which are read for their tensors' list


@dataclass(frozen=True)
class Lack:
    """A thing that is missing here: its name, whose it is, and what to do about it."""

    name: str
    part: str
    mend: str


class Missing(ValueError):
    """Things that a cell needs are not here; everything else about it was found right."""

    def __init__(self, lacks: Sequence[Lack]) -> None:
        named = ", ".join(lack.name for lack in lacks[:3]) + (f" and {len(lacks) - 3} more" if len(lacks) > 3 else "")
        super().__init__(f"missing here: {named}: lgap-bench fetch with the same words says from where, and fetches")
        self.lacks = list(lacks)


@dataclass(frozen=True)
class Looked:
    """What a dry check found: the cell in words, and what is missing."""

    cell: str
    lacks: list[Lack]

    @property
    def text(self) -> str:
        """In two lines."""
        return (
            f"{self.cell}\n  dry check passed; missing here: {', '.join(lack.name for lack in self.lacks) or 'nothing'}"
        )

    @property
    def told(self) -> str:
        """With a line for each thing that is missing."""
        return "\n".join([self.text, *(f"    {lack.name}, for {lack.part}: {lack.mend}" for lack in self.lacks)])


def checked(cell: Cell, alone: bool) -> str:
    """Check a cell and print what was found, each missing thing on a line where it is `alone`: a sweep sums them up.

    Raises Missing if something is, ValueError for what could not work.
    """
    found = look(cell)
    print(text := found.told if alone else found.text, flush=True)
    if found.lacks:
        raise Missing(found.lacks)
    return text


def dry(cell: Cell) -> str:
    """What the cell is and what it lacks, in two lines. Raises ValueError for the first thing that could not work."""
    return look(cell).text


def look(cell: Cell) -> Looked:
    """Check everything that can be checked without measuring; what is missing is listed, what is wrong raises ValueError."""
    check(cell)
    check_signatures(cell)
    _check_shapes(cell)
    _examine(cell)
    lacks = [*_packages(cell), *(Lack(need.name, need.part, need.mend()) for need in missing(cell))]
    names, threat = cell.names, cell.threat
    stages = "".join(f", {stage} {getattr(names, stage)}" for stage in cell.stages)
    told = (
        f"{names.experiment or 'cell'}: {names.purifier} + {names.classifier}{stages} on "
        f"{names.dataset}, {names.attack} (view {about(cell.view, 'shown', names.view)}), {threat['norm']} {threat['eps']}, n = {cell.n}"
    )
    return Looked(told, lacks)


def _packages(cell: Cell) -> list[Lack]:
    """Optional packages that are not installed."""
    package = about(cell.view, "needs", {}).get("package")
    if package is None or importlib.util.find_spec(package) is not None:
        return []
    return [Lack(package, f"view={cell.names.view}", f"pip install 'lgap-bench[{cell.names.view}]'")]


def _examine(cell: Cell) -> None:
    """Every model that is here: its headers against its architecture, its tokenizer, its config; of checkpoints their list."""
    seen: set[str] = set()
    for node in _parts([cell.classifier, cell.purifier, cell.view, cell.attack]):
        weights, file = node.get("weights"), node.get("file")
        if isinstance(weights, str) and weights not in seen and weight_files.there(weights):
            seen.add(weights)
            weight_files.inspect(weights)
            module = importlib.import_module(node["_target_"].rsplit(".", 1)[0])
            if hasattr(module, "examine"):
                keys = inspect.signature(module.examine).parameters
                _examined(module.examine, tuple((key, node[key]) for key in keys if key in node), _stamp(weights))
        if (
            isinstance(file, str)
            and file.endswith(CHECKPOINTS)
            and file not in seen
            and Path(file).expanduser().is_file()
        ):
            from lgap_bench.runtime import checkpoint  # which imports torch

            seen.add(file)
            checkpoint.read(file, device="meta")


def _stamp(weights: str) -> tuple[tuple[str, int, int], ...]:
    """A model's files as they are now."""
    path = weight_files.place(weights)
    found = weight_files.files(path) if path.is_dir() else [path]
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in found)


@functools.lru_cache(maxsize=256)
def _examined(examine: Callable[..., None], given: tuple[tuple[str, Any], ...], stamp: object) -> None:
    """Once for all cells of a process, as long as the files stay as they are (`stamp`); a refusal is raised each time."""
    examine(**dict(given))


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """Every config that builds something."""
    if isinstance(node, dict) and isinstance(node.get("_target_"), str):
        yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from _parts(child)


def _check_shapes(cell: Cell) -> None:
    """The classifier's architecture, with random weights, on one empty image: as many logits as there are classes."""
    import torch

    classifier, shape = cell.classifier, about(cell.dataset, "shape")
    module = importlib.import_module(classifier["_target_"].rsplit(".", 1)[0])
    if not hasattr(module, "skeleton") or shape is None:  # only the images themselves say their size
        return
    if isinstance(weights := classifier.get("weights"), str) and not weight_files.there(weights):
        return
    device = "meta" if not paths(classifier, "weights") else "cpu"  # shapes without numbers: nothing is allocated
    with torch.device(device), torch.no_grad():
        logits = module.skeleton(**arguments(classifier)).eval()(torch.empty(1, *shape))
    classes = about(cell.dataset, "class_count") or len(cell.dataset.get("classes") or ())
    if classes and tuple(logits.shape) != (1, classes):
        raise ValueError(
            f"classifier={cell.names.classifier} gives {logits.shape[-1]} logits for an image of {shape}, "
            f"dataset={cell.names.dataset} has {classes} classes: choose a classifier of that data set"
        )
