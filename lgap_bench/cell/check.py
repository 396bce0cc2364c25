"""Checks of a composed config, before torch or a model is imported: each error is one line with key, value and mend."""

from __future__ import annotations

from pathlib import Path

from lgap_bench.cell.about import about
from lgap_bench.cell.config import GROUPS, Cell, Config
from lgap_bench.cell.diffusion import check_diffusion
from lgap_bench.cell.rules import check_compatibility, paths, require_package
from lgap_bench.cell.values import ABOUT, check_limits, fraction
from lgap_bench.dataset.subset import entries
from lgap_bench.prior.timesteps import timesteps
from lgap_bench.runtime import weights as weight_files


def check(cell: Cell) -> None:
    """Raise ValueError for the first thing in a resolved cell config that cannot work."""
    _check_subset(cell)
    check_limits({**cell.numbers, **{group: getattr(cell, group) for group in GROUPS}, **cell.stages})
    _check_budget(cell)
    _check_sizes(cell)
    check_compatibility(cell)
    check_diffusion(cell)
    _check_synonyms(cell)


def _check_budget(cell: Cell) -> None:
    eps = fraction(cell.threat["eps"], "threat.eps")
    if eps <= 0 or (cell.threat["norm"] == "linf" and eps > 1):
        raise ValueError(f"threat.eps={cell.threat['eps']} is not in (0, 1]: pixels are in [0, 1], write 8/255")
    _check_steps(cell.attack, "attack", eps, 1 if cell.threat["norm"] == "linf" else float("inf"))


def _check_steps(attack: Config, path: str, eps: float, most: float) -> None:
    """The step sizes of an attack and of those it is made of."""
    if "step_size" in attack:
        step = fraction(attack["step_size"], f"{path}.step_size", eps)
        if not 0 < step <= most:
            raise ValueError(
                f"{path}.step_size={attack['step_size']} is not {'positive' if step <= 0 else 'in (0, 1], pixels are in [0, 1]'}: write 2/255 or eps/4"
            )
    for key, member in attack.items():
        if isinstance(member, dict) and key != ABOUT:
            _check_steps(member, f"{path}.{key}", eps, most)


def _check_subset(cell: Cell) -> None:
    name, dataset = cell.names.subset, cell.dataset
    folder = name.rpartition("/")[0]
    if folder not in ("", cell.names.dataset):
        raise ValueError(
            f"subset={name} with dataset={cell.names.dataset}: it is drawn from another data set, use subset={cell.names.dataset}/... or none"
        )
    if not isinstance(dataset.get("subset"), dict):
        return
    if dataset["split"] != "test":
        raise ValueError(f"dataset.split={dataset['split']} with subset={name}: a subset is of the test images")

    entries(**dataset["subset"])


def _check_sizes(cell: Cell) -> None:
    available = about(cell.dataset, "sizes", {}).get(cell.dataset.get("split"))
    if available is not None and cell.n > available:
        raise ValueError(
            f"n={cell.n} is more than dataset={cell.names.dataset} has: its {cell.dataset['split']} split holds {available} images"
        )
    purifier = cell.purifier
    if {"steps", "strength", "start", "spacing"} <= purifier.keys():
        timesteps(purifier["steps"], purifier["strength"], purifier["start"], purifier["spacing"])


def _check_synonyms(cell: Cell) -> None:
    dataset = cell.dataset
    strange = sorted(set(dataset.get("synonyms") or {}) - set(dataset.get("classes") or ()))
    if strange:
        raise ValueError(f"dataset.synonyms: {strange[0]} is none of dataset.classes: write it as it stands there")


def require_files(cell: Cell) -> None:
    """Raise ValueError for weights that are missing or damaged, and for files and packages that are not there."""
    require_package(cell)
    used = {key: getattr(cell, key) for key in ("attack", "dataset", "classifier", "purifier")}
    for path in paths(used, "weights"):
        weight_files.inspect(path)
    if cell.clip:
        _require_clip(cell.clip)
    for path in paths(used, "file"):
        if not Path(path).is_file():
            raise ValueError(f"file={path} does not exist: give the path of an existing file")


def _require_clip(folder: str) -> None:
    try:
        weight_files.inspect(folder)
        weight_files.locate(folder, {".": "tokenizer*.json"})
    except ValueError as error:
        raise ValueError(str(error).replace("weights=", "clip=", 1)) from None
