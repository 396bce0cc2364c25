"""Which records belong to a table: by the experiments that requested them, and side by side per defense."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lgap_bench.cell.identity import NUMERICS_VERSION
from lgap_bench.record import Record, records
from lgap_bench.report.rows import Merge, defense, grouped, merge, requested_by
from lgap_bench.report.worst import most_attacked

Requested = dict[str, list[tuple[Record, str]]]  # experiment -> records with the overrides that single them out
UNTOLD = (  # overrides that change no number, or that a column of its own shows
    "experiment", "dataset", "outputs", "threads", "seed", "device", "max_rows", "keep_images", "data", "checkpoints",
    "logger", "shard", "shards", "save_every", "offline", "export",
)  # fmt: skip


@dataclass
class Row:
    """One defense, data set, budget and n.

    Attributes:
        identity: all that identifies it, flattened (`purifier.t_star`), without attack, view and seed.
        facts: names and numbers that every attack's line shares (`purifier`, `classifier`, `dataset`, `norm`, `eps`, `n`).
        lines: experiment's last name -> merged line, as `rows.merge` makes it.
        seeds: seed -> experiment's last name -> the record measured with it.
    """

    identity: dict[str, Any]
    facts: dict[str, Any]
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: dict[int, dict[str, Record]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def best_measured(self) -> Mapping[str, Any]:
        """The line of most seeds: natural accuracy does not depend on the attack."""
        return max(self.lines.values(), key=lambda line: line["seeds"])

    @property
    def most_attacked(self) -> dict[int, dict[str, Record]]:
        """The seeds that met the largest set of attacks, with their records."""
        return most_attacked(self.seeds)


def by_defense(experiments: Sequence[str], outputs: Path, dataset: str | None, merge: Merge = merge) -> list[Row]:
    """All rows that the experiments' records make; cells requested with another attack than the experiment's are left out.

    Raises ValueError where two records fall on one place: they differ in a setting of the attack itself.
    """
    rows: dict[str, Row] = {}
    found = records(outputs)
    for experiment in experiments:
        name = experiment.rsplit("/", 1)[1]
        for group in grouped([record for record in found if requested_by(record, experiment, dataset)]):
            line, identity = merge(group), defense(group[0])
            facts = {key: line[key] for key in ("purifier", "classifier", "captioner", "dataset", "norm", "eps", "n")}
            row = rows.setdefault(json.dumps(identity, sort_keys=True), Row(identity, facts))
            if name in row.lines:
                raise ValueError(
                    f"{experiment}: records {row.lines[name]['records']} and {line['records']} differ in the attack's own "
                    "settings: delete the one that is not meant"
                )
            row.lines[name] = line
            for record in group:
                row.seeds[record.summary()["seed"]][name] = record
    return list(rows.values())


def requested(found: Sequence[Record], experiments: Collection[str]) -> Requested:
    """The records of some experiments; one that was requested more than once is named by the call with fewest overrides."""
    by_experiment: Requested = defaultdict(list)
    for record in found:
        texts: dict[str, str] = {}
        for each in record.requests():
            text = " ".join(filter(None, [overridden(each["overrides"]), _outdated(record)]))
            texts[each["experiment"]] = min(texts.get(each["experiment"], text), text, key=len)
        for experiment, text in texts.items():
            if experiment in experiments:
                by_experiment[experiment].append((record, text))
    return by_experiment


def on_dataset(found: Requested, dataset: str) -> Requested:
    """Those that were measured on one data set."""
    return {
        experiment: [(record, text) for record, text in group if record.summary()["dataset_name"] == dataset]
        for experiment, group in found.items()
    }


def overridden(overrides: Sequence[str]) -> str:
    """The overrides that make a cell another one than its experiment's default, e.g. `attack.steps=10 n=200`."""
    keys = ((text, text.split("=")[0].lstrip("+~")) for text in overrides)
    kept = [text for text, key in keys if key not in UNTOLD and not key.startswith(("experiment/", "logger."))]
    return " ".join(sorted(kept))


def _outdated(record: Record) -> str:
    """Records of earlier numerics are shown, and say so."""
    version = record.identity()["numerics_version"]
    return "" if version == NUMERICS_VERSION else f"numerics_version={version}"
