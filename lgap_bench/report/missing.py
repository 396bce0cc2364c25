"""What a table lacks: the command that makes a cell, the cells that an item's grids plan, and those that were begun and not finished."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from lgap_bench.record import Record
from lgap_bench.report.rows import requested_by

UNTOLD = (
    "experiment",
    "dataset",
    "outputs",
    "logger",
    "threads",
    "device",
)  # said already, or no part of what a cell is
MINIATURE = ("digits", "scenes")  # the data sets that come with the code


def command(experiments: Sequence[str], *words: str, dataset: str | None = None) -> str:
    """The call that measures some experiments: `lgap-bench run experiment=lgap/table1/lgap dataset=digits`."""
    many = len(experiments) > 1 or any("," in word for word in words)
    scale = [f"dataset={dataset}"] if dataset else []
    return " ".join(
        ["lgap-bench run", *(["-m"] if many else []), f"experiment={','.join(experiments)}", *words, *scale]
    )


def planned(table: Mapping[str, Any], dataset: str | None) -> list[dict[str, str]]:
    """The cells of an item's grids at a data set's scale, as their words: `{"experiment": ..., "purifier": "coup", "n": "200"}`."""
    scale = "miniature" if dataset in MINIATURE else "paper"
    found = []
    for grid in (table.get("grids") or {}).get(scale, ()):
        keys = [word.partition("=")[0] for word in grid]
        values = [word.partition("=")[2].split(",") for word in grid]
        found += [dict(zip(keys, each, strict=True)) for each in product(*values)]
    return found


def unrun(experiments: Iterable[str], found: Sequence[Record], dataset: str | None) -> list[str]:
    """A note with the command of the experiments that no record answers, of an item whose rows do not say it themselves."""
    left = [each for each in experiments if not any(requested_by(record, each, dataset) for record in found)]
    return [f"not run: `{command(left, dataset=dataset)}`"] if left else []


@dataclass(frozen=True)
class Begun:
    """A cell of which some chunks are there: a shard that is missing, a kill, or work that goes on right now."""

    experiment: str
    dataset: str
    purifier: str
    seed: int
    done: int
    chunks: int
    command: str  # goes on with it

    def __str__(self) -> str:
        return f"partial: {self.experiment} ({self.purifier}, seed {self.seed}), {self.done} of {self.chunks} chunks: `{self.command}` goes on"


def begun(outputs: Path, experiments: Collection[str], dataset: str | None = None) -> list[Begun]:
    """Cells of some experiments that have a folder and no summary yet. What of it cannot be read is no cell."""
    found = []
    for file in sorted((outputs / "records").glob("*/config.yaml")):
        record = Record(file.parent)
        if record.complete:
            continue
        try:
            held = record.config()
            experiment, own, chunks = (
                held["experiment_name"],
                held["dataset_name"],
                math.ceil(held["n"] / held["chunk"]),
            )
        except (ValueError, KeyError, TypeError):  # its writer is at it, or another release wrote it
            continue
        if experiment in experiments and dataset in (None, own):
            done = chunks - sum(map(len, record.missing(chunks).values()))
            call = command([experiment], *_words(record, experiment, held), dataset=own)
            found.append(Begun(experiment, own, held["purifier_name"], held["seed"], done, chunks, call))
    return found


def _words(record: Record, experiment: str, held: Mapping[str, Any]) -> list[str]:
    """What a shard was asked for; of a cell that was killed no words are kept, so its seed and n."""
    asked = [each["overrides"] for each in record.requests() if each["experiment"] == experiment]
    words = [word for word in min(asked, key=len, default=[]) if word.lstrip("+").split("=")[0] not in UNTOLD]
    return words if asked else [f"seed={held['seed']}", f"n={held['n']}"]
