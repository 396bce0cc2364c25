"""Checks of a composed config, before torch or a model is imported: each error is one line with key, value and mend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lgap_bench import weights as weight_files
from lgap_bench.combination import fits_together, paths, require_package
from lgap_bench.fraction import fraction
from lgap_bench.limit import refuse_beyond
from lgap_bench.purifier import settings
from lgap_bench.purifier.times import timesteps


def check(cell: dict[str, Any]) -> None:
    """Raise ValueError for the first thing in a resolved cell config that cannot work."""
    _subset(cell)
    refuse_beyond(cell)
    _budget(cell)
    _sizes(cell)
    fits_together(cell)
    settings.fits(cell)
    _synonyms(cell)


def _budget(cell: dict[str, Any]) -> None:
    eps = fraction(cell["threat"]["eps"], "threat.eps")
    if eps <= 0 or (cell["threat"]["norm"] == "linf" and eps > 1):
        raise ValueError(f"threat.eps={cell['threat']['eps']} is not in (0, 1]: pixels are in [0, 1], write 8/255")
    _steps(cell["attack"], "attack", eps, 1 if cell["threat"]["norm"] == "linf" else float("inf"))


def _steps(attack: dict[str, Any], path: str, eps: float, most: float) -> None:
    """The step sizes of an attack and of those it is made of."""
    if "step_size" in attack:
        step = fraction(attack["step_size"], f"{path}.step_size", eps)
        if not 0 < step <= most:
            raise ValueError(
                f"{path}.step_size={attack['step_size']} is not {'positive' if step <= 0 else 'in (0, 1], pixels are in [0, 1]'}: write 2/255 or eps/4"
            )
    for key, member in attack.items():
        if isinstance(member, dict) and key != "limits":
            _steps(member, f"{path}.{key}", eps, most)


def _subset(cell: dict[str, Any]) -> None:
    name, dataset = cell["subset_name"], cell["dataset"]
    folder = name.rpartition("/")[0]
    if folder not in ("", cell["dataset_name"]):
        raise ValueError(
            f"subset={name} with dataset={cell['dataset_name']}: it is drawn from another data set, use subset={cell['dataset_name']}/... or none"
        )
    if not isinstance(dataset.get("subset"), dict):
        return
    if dataset["split"] != "test":
        raise ValueError(f"dataset.split={dataset['split']} with subset={name}: a subset is of the test images")
    from lgap_bench.dataset.subset import entries

    entries(**dataset["subset"])


def _sizes(cell: dict[str, Any]) -> None:
    available = cell["dataset"].get("sizes", {}).get(cell["dataset"].get("split"))
    if available is not None and cell["n"] > available:
        raise ValueError(
            f"n={cell['n']} is more than dataset={cell['dataset_name']} has: its {cell['dataset']['split']} split holds {available} images"
        )
    purifier = cell["purifier"]
    if {"steps", "strength", "start", "spacing"} <= purifier.keys():
        timesteps(purifier["steps"], purifier["strength"], purifier["start"], purifier["spacing"])


def _synonyms(cell: dict[str, Any]) -> None:
    dataset = cell["dataset"]
    strange = sorted(set(dataset.get("synonyms") or {}) - set(dataset.get("classes") or ()))
    if strange:
        raise ValueError(f"dataset.synonyms: {strange[0]} is none of dataset.classes: write it as it stands there")


def require_files(cell: dict[str, Any]) -> None:
    """Raise ValueError for weights that are missing or damaged, and for files and packages that are not there."""
    require_package(cell)
    used = {key: cell[key] for key in ("dataset", "classifier", "purifier")}
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
