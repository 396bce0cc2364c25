"""Checks of a composed config, before torch or a model is imported: each error is one line with key, value and mend."""

from __future__ import annotations

import math
import os
from pathlib import Path

from lgap_bench.cell.about import about, without
from lgap_bench.cell.config import GROUPS, Cell, Config
from lgap_bench.cell.diffusion import check_diffusion
from lgap_bench.cell.rules import check_compatibility, paths, require_package
from lgap_bench.cell.values import ABOUT, check_limits, fraction
from lgap_bench.dataset import rule
from lgap_bench.dataset.subset import entries
from lgap_bench.prior.timesteps import timesteps
from lgap_bench.runtime import sources
from lgap_bench.runtime import weights as weight_files


def check(cell: Cell) -> None:
    """Raise ValueError for the first thing in a resolved cell config that cannot work."""
    check_subset(cell)
    check_limits({**cell.numbers, **{group: getattr(cell, group) for group in GROUPS}, **cell.stages})
    _check_threads(cell)
    _check_precision(cell)
    _check_shards(cell)
    _check_words(cell)
    _check_budget(cell)
    _check_sizes(cell)
    check_compatibility(cell)
    check_diffusion(cell)
    _check_synonyms(cell)


def _check_threads(cell: Cell) -> None:
    cores = os.cpu_count()
    if cell.threads is not None and cores is not None and cell.threads > cores:
        raise ValueError(
            f"threads={cell.threads} is more than this machine's {cores} cores: use threads={cores} or null"
        )


def _check_precision(cell: Cell) -> None:
    if cell.dtype == "float64" and cell.device == "mps":
        raise ValueError(
            "dtype=float64 with device=mps: Apple's GPUs have none, use device=cpu or another precision=..."
        )
    if cell.dtype_of == "prior" and "prior" not in cell.purifier:
        raise ValueError(
            f"dtype_of=prior with purifier={cell.names.purifier}, which has no prior: use dtype_of=all, or purifier=lgap"
        )
    if cell.auto_rows and cell.purifier.get("as_released"):
        raise ValueError(
            "max_rows=auto with purifier.as_released=true, whose numbers depend on it: give the release's number, max_rows=32"
        )


def _check_shards(cell: Cell) -> None:
    """A shard that has no chunk is no error: the cells of a sweep differ in size."""
    shard, shards = cell.shard, cell.shards
    if shard is None and shards > 1:
        raise ValueError(
            f"shards={shards} without a shard: write -m 'shard=range(0,{shards})' shards={shards}, or leave both away to measure the whole cell"
        )
    if shard is not None and shard >= shards:
        raise ValueError(
            f"shard={shard} is not below shards={shards}: shards are counted from 0, write -m 'shard=range(0,{shards if shards > 1 else shard + 1})' shards={shards if shards > 1 else shard + 1}"
        )


def _check_words(cell: Cell) -> None:
    """The data set's names are words: YAML reads `1`, `no` and `null` as something else."""
    classes = cell.dataset.get("classes")  # null, or no key: read from files
    words = isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)
    if classes is not None and not words:
        raise ValueError(f"dataset.classes={classes} is no list of names: write ['cat', 'dog'], numbers in quotes")
    synonyms = cell.dataset.get("synonyms") or {}
    if not isinstance(synonyms, dict) or not all(isinstance(words, list) for words in synonyms.values()):
        raise ValueError(f"dataset.synonyms={synonyms} is no mapping of lists: write {{cat: [kitten, kitty]}}")


def _check_budget(cell: Cell) -> None:
    eps = fraction(cell.threat["eps"], "threat.eps")
    most, why = _widest(cell)
    if not 0 < eps <= most:
        raise ValueError(f"threat.eps={cell.threat['eps']} is not in (0, {most:.4g}]: {why}")
    _check_steps(cell.attack, "attack", eps, most)


def _widest(cell: Cell) -> tuple[float, str]:
    """The longest way between two images in [0, 1]: any budget above it is none, and why."""
    shape = about(cell.dataset, "shape")
    if cell.threat["norm"] == "linf":
        return 1.0, "pixels are in [0, 1], write 8/255"
    if cell.threat["norm"] != "l2" or shape is None:
        return math.inf, "write 0.5"
    diagonal = math.sqrt(math.prod(shape))
    return diagonal, f"the diagonal of the box [0, 1]^({'x'.join(str(side) for side in shape)}), write 0.5"


def _check_steps(attack: Config, path: str, eps: float, most: float) -> None:
    """The step sizes of an attack and of those it is made of."""
    if "step_size" in attack:
        step = fraction(attack["step_size"], f"{path}.step_size", eps)
        if not 0 < step <= most:
            raise ValueError(
                f"{path}.step_size={attack['step_size']} is not {'positive' if step <= 0 else f'in (0, {most:.4g}], pixels are in [0, 1]'}: write 2/255 or eps/4"
            )
    for key, member in attack.items():
        if isinstance(member, dict) and key != ABOUT:
            _check_steps(member, f"{path}.{key}", eps, most)


def check_subset(cell: Cell) -> None:
    """Raise ValueError for a subset of another data set or split, and for one that is not what its YAML says."""
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
    if "classes" in dataset["subset"]:
        rule.parse(without(dataset["subset"]))  # which images it chooses, only the annotations say
    else:
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
    classes = dataset.get("classes")
    strange = [] if classes is None else sorted(set(dataset.get("synonyms") or {}) - set(classes))
    if strange:
        raise ValueError(f"dataset.synonyms: {strange[0]} is none of dataset.classes: write it as it stands there")


def require_files(cell: Cell) -> None:
    """Raise ValueError for weights that are missing or damaged, and for files and packages that are not there."""
    require_package(cell)
    used = {key: getattr(cell, key) for key in ("attack", "dataset", "classifier", "purifier", "view")}
    for path in paths(used, "weights"):
        weight_files.inspect(path)
    if cell.clip:
        _require_clip(cell.clip)
    for path in paths(used, "file"):
        if not Path(path).expanduser().is_file():
            mend = sources.mend(path) if sources.of(path) else "give the path of an existing file"
            raise ValueError(f"file={path} does not exist (looked for {Path(path).expanduser().absolute()}): {mend}")


def _require_clip(folder: str) -> None:
    try:
        weight_files.inspect(folder)
        weight_files.locate(folder, {".": "tokenizer*.json"})
    except ValueError as error:
        raise ValueError(str(error).replace("weights=", "clip=", 1)) from None
