"""Records -> rows: seeds merged, told apart by what differs between them. It never runs a model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from lgap_bench.metric.accuracy import accuracy
from lgap_bench.record import Record
from lgap_bench.report.page import judged
from lgap_bench.report.several import several
from lgap_bench.task.single_label import SINGLE_LABEL

VERDICTS = ("not judged", "sound", "upper bound", "invalid")  # from the best
ROBUST = ("robust", "any_of_k", "majority_of_k")
NAMES = ("purifier", "attack", "view", "dataset", "classifier", "captioner", "train", "finetune")
MEANS = (  # numbers of a summary that are averaged over seeds
    "caption_label_clean", "caption_label_attacked", "undefended_natural", "undefended_robust", "as_published",
)  # fmt: skip
# Of an identity: what may differ between attacks on one defense (`order`: of an ensemble's members).
ATTACKS = ("attack", "view", "seed", "unrelated", "order")


def merge(cells: Sequence[Record], title: str = "") -> dict[str, Any]:
    """One row from records that differ in their seed alone: accuracies over seeds, images and draws, with intervals.

    Robust accuracy and what belongs to it are left out where the attack failed on every image.
    """
    summaries = [record.summary() for record in cells]
    first = summaries[0]
    samples = [record.samples() for record in cells]
    natural = accuracy(np.asarray([SINGLE_LABEL.correct(each, "clean") for each in samples]))
    row: dict[str, Any] = {key: first.get(f"{key}_name") for key in NAMES}
    row["view"] = (
        first["view"].removesuffix(", caption fixed").removesuffix(", mask and text fixed")
    )  # says `adjoint (biased)`
    row |= {key: first[key] for key in ("eps", "norm", "n", "score_draws")}
    row |= {"row": title or _title(first), "seeds": len(cells), "status": max(s["status"] for s in summaries)}
    row |= {"natural": natural.mean, "natural_low": natural.low, "natural_high": natural.high}
    row |= {"natural_any_of_k": natural.any_of_k, "natural_majority_of_k": natural.majority_of_k}
    row |= {"records": " ".join(record.folder.name for record in cells), "architecture": _architecture(cells[0])}
    attacked = _attacked(samples)
    if attacked.shape[1]:
        robust = accuracy(attacked)
        row |= {"robust": robust.mean, "robust_low": robust.low, "robust_high": robust.high}
        row |= {"any_of_k": robust.any_of_k, "majority_of_k": robust.majority_of_k}
    row |= _judged(cells, row)
    row |= several(samples, summaries, row["verdict"])
    for key in MEANS:
        values = [s[key] for s in summaries if s.get(key) is not None]
        row[key] = float(np.mean(values)) if values else None
    row["failed"] = sum(s["failed"] for s in summaries)
    row["seconds"] = sum(record.run()["seconds"] for record in cells)
    return row


class Merger:
    """`merge` that remembers: a page asks for the same rows several times, and the intervals of scenes take a second each."""

    def __init__(self) -> None:
        self._held: dict[tuple[Record, ...], dict[str, Any]] = {}

    def __call__(self, cells: Sequence[Record]) -> dict[str, Any]:
        """What `merge(cells)` answers; a mapping of the caller's own."""
        key = tuple(cells)
        if key not in self._held:
            self._held[key] = merge(cells)
        return dict(self._held[key])


Merge = Callable[[Sequence[Record]], dict[str, Any]]


def _judged(cells: Sequence[Record], row: Mapping[str, Any]) -> dict[str, Any]:
    """`verdict` and `reasons` over the seeds, and the robust accuracies as they may be read."""
    found = [record.verdict() for record in cells]
    verdict = max((value for value, _ in found), key=VERDICTS.index)
    reasons = list(dict.fromkeys(reason for _, each in found for reason in each))
    return {**marked(row, verdict), "verdict": verdict, "reasons": "; ".join(reasons) or None}


def marked(row: Mapping[str, Any], verdict: str) -> dict[str, Any]:
    """The robust accuracies of a row as its verdict lets them be read: upper bounds say so, in every table."""
    return {key: judged(row[key], verdict) for key in ROBUST if key in row}


def grouped(cells: Sequence[Record]) -> list[list[Record]]:
    """Records that differ in their seed alone, together; in the order in which each group first appears."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in cells:
        groups[json.dumps({**record.identity(), "seed": None}, sort_keys=True)].append(record)
    return [sorted(group, key=lambda record: record.summary()["seed"]) for group in groups.values()]


def requested_by(record: Record, experiment: str, dataset: str | None) -> bool:
    """Whether a record was made for an experiment, under its own attack, on a data set if one is given."""
    for_it = any(each["experiment"] == experiment and not _another(each["overrides"]) for each in record.requests())
    return for_it and dataset in (None, record.summary()["dataset_name"])


def defense(record: Record) -> dict[str, Any]:
    """All that identifies a cell but its attack, flattened: records that share it met the same images and defense."""
    kept = {key: value for key, value in record.identity().items() if key not in ATTACKS}
    # Whether the guidance hides from the attacker changes the attack, never the purified image.
    return {key: value for key, value in flattened(kept).items() if not key.endswith("guidance.detach_guidance")}


def flattened(node: Any, path: str = "") -> dict[str, Any]:
    """A nested config as one level: `{"purifier": {"steps": 6}}` -> `{"purifier.steps": 6}`."""
    if not isinstance(node, dict):
        return {path: node}
    flat: dict[str, Any] = {}
    for key, child in node.items():
        flat |= flattened(child, f"{path}.{key}" if path else key)
    return flat


def apart(settings: Sequence[Mapping[str, Any]], alike: Sequence[Hashable]) -> list[dict[str, Any]]:
    """Per row those of its settings that differ among the rows that are otherwise alike; empty where none is.

    Args:
        settings: flattened, one mapping per row.
        alike: one value per row; rows with the same one would read the same.
    """
    places: dict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(alike):
        places[key].append(place)
    found: list[dict[str, Any]] = [{} for _ in settings]
    for group in places.values():
        keys = sorted(set().union(*(settings[place] for place in group)))
        told = [key for key in keys if len({json.dumps(settings[place].get(key)) for place in group}) > 1]
        for place in group:
            found[place] = {key: settings[place][key] for key in told if key in settings[place]}
    return found


def told(differences: Mapping[str, Any]) -> str:
    """What sets a row apart, in words: `purifier.steps=10 seed=1`."""
    return " ".join(f"{key}={value}" for key, value in differences.items())


def settings_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """On what rows were measured: `Measured on: digits, linf 48/255, n = 64, 1-3 seeds`; empty where none was."""
    measured = [row for row in rows if row.get("records")]
    if not measured:
        return ""
    names = ", ".join(sorted({row["dataset"] for row in measured}))
    threats = ", ".join(sorted({f"{row['norm']} {brief(row['eps'])}" for row in measured}))
    counts = {key: spread([row[key] for row in measured]) for key in ("n", "seeds")}
    many = "" if counts["seeds"] == "1" else "s"
    return f"Measured on: {names}, {threats}, n = {counts['n']}, {counts['seeds']} seed{many}"


def brief(eps: str) -> str:
    """A budget as it is read: `8/255` as it was asked for, 83.1384387633061, which nobody asked for, with four digits."""
    return eps if "/" in eps else f"{float(eps):.4g}"


def spread(counts: Sequence[int]) -> str:
    """`3`, or `1-3` where they differ."""
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"


def interval(line: Mapping[str, Any], key: str = "robust") -> str | None:
    """`40.1-52.3`, None where nothing counts."""
    return f"{line[f'{key}_low']:.1f}-{line[f'{key}_high']:.1f}" if key in line else None


def _another(overrides: Sequence[str]) -> bool:
    """Whether the experiment was asked for with another attack than its own."""
    return any(text.lstrip("+").startswith(("attack=", "attack.", "view=")) for text in overrides)


def _attacked(samples: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    """(seeds, images, draws) right under attack; images whose attack failed in any seed are left out of all."""
    kept = ~np.asarray([table["failed"] for table in samples]).any(0)
    return np.asarray([SINGLE_LABEL.correct(each, "attacked") for each in samples])[:, kept]


def _architecture(record: Record) -> str | None:
    """Of the network that was measured, which the paper's need not be; None where its config does not say."""
    classifier = record.config().get("classifier") or {}
    return (classifier.get("_about_") or {}).get("architecture")


def _title(summary: Mapping[str, Any]) -> str:
    captioner = summary["captioner_name"]
    plain = captioner is None or captioner.endswith("/blip")
    return summary["purifier_name"] if plain else f"{summary['purifier_name']} ({captioner} caption)"
