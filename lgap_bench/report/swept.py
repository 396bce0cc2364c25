"""Records of a Hydra sweep, laid side by side: one row per defense on the same images, one entry per experiment."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lgap_bench.record import Record, records
from lgap_bench.report.language import requested_by
from lgap_bench.report.table import flattened, grouped, merge
from lgap_bench.report.worst import ATTACKS


@dataclass
class Row:
    """One defense, data set, budget and n.

    Attributes:
        identity: all that identifies it, flattened (`purifier.t_star`), without attack, view and seed.
        facts: names and numbers that every attack's line shares (`purifier`, `classifier`, `dataset`, `norm`, `eps`, `n`).
        lines: experiment's last name -> merged line, as `table.merge` makes it.
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
    def most_attacked(self) -> dict[int, list[Record]]:
        """The seeds that met the largest set of attacks, with their records; a seed that met fewer would look robust."""
        met = {seed: tuple(records) for seed, records in self.seeds.items()}
        largest = max(met.values(), key=len)
        return {seed: list(self.seeds[seed].values()) for seed in sorted(met) if met[seed] == largest}


def swept(experiments: Sequence[str], outputs: Path, dataset: str | None) -> list[Row]:
    """All rows that the experiments' records make; cells asked for with another attack than the experiment's are left out.

    Raises ValueError where two records fall on one place: they differ in a setting of the attack itself.
    """
    rows: dict[str, Row] = {}
    found = records(outputs)
    for experiment in experiments:
        name = experiment.rsplit("/", 1)[1]
        for group in grouped([record for record in found if requested_by(record, experiment, dataset)]):
            line, identity = merge(group), _defense(group[0])
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


def _defense(record: Record) -> dict[str, Any]:
    kept = {key: value for key, value in record.identity().items() if key not in ATTACKS}
    # Whether the guidance hides from the attacker changes the attack, never the purified image.
    return {key: value for key, value in flattened(kept).items() if not key.endswith("guidance.detach_guidance")}


def differences(rows: Sequence[Row]) -> list[str]:
    """Per row what sets it apart from others of the same purifier, data set, budget and n: `purifier.t_star=0.1`."""
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        alike[tuple(row.facts[key] for key in ("purifier", "dataset", "norm", "eps", "n"))].append(place)
    texts = [""] * len(rows)
    for places in alike.values():
        keys = sorted(set().union(*(rows[place].identity for place in places)))
        told = [key for key in keys if len({json.dumps(rows[place].identity.get(key)) for place in places}) > 1]
        for place in places:
            own = rows[place].identity
            texts[place] = " ".join(f"{key}={own[key]}" for key in told if key in own)
    return texts
