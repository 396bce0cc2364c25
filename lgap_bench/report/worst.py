"""The worst attack per sample over records: chosen on `select` draws, scored on `score` draws that no attack has seen."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lgap_bench.metric.accuracy import accuracy
from lgap_bench.record import Record
from lgap_bench.report.table import merge

ATTACKS = (
    "attack",
    "view",
    "seed",
    "unrelated",
)  # what may differ between the records that are compared: never the defense or images


def worst_of(cells: Mapping[str, Sequence[tuple[Record, str]]]) -> list[dict[str, Any]]:
    """One line per defense, data set, budget and n that at least two of the experiments were measured on.

    Args:
        cells: experiment -> records with the overrides that single them out. Seeds that all of them have are used.
    A sample that failed under every attack is left out and counted; the clean control is natural accuracy on the same draws.
    """
    same, texts = _comparable(cells)
    lines = []
    for defense, present in same.items():
        seeds = sorted(set.intersection(*(set(found) for found in present.values())))
        if len(present) > 1 and seeds:
            by_seed = [[found[seed] for found in present.values()] for seed in seeds]
            lines.append({**per_image(by_seed, len(cells)), "differs": min(texts[defense], key=len) or None})
    # Beside a line of seven attacks, one of two on another training of the same defense would only confuse.
    most = {
        _images(line): max(_compared(other) for other in lines if _images(other) == _images(line)) for line in lines
    }
    return [line for line in lines if _compared(line) == most[_images(line)]]


def worse_of(cells: Mapping[str, Sequence[tuple[Record, str]]]) -> list[dict[str, Any]]:
    """As papers report AutoAttack's versions: per defense the line with the lowest robust accuracy, all images together.

    One line per defense that all of the experiments were measured on, on the seeds that all of them have. `as_published`
    is the lowest of the library's own counts.
    """
    same, texts = _comparable(cells)
    lines = []
    for defense, present in same.items():
        seeds = sorted(set.intersection(*(set(found) for found in present.values())))
        if len(present) < len(cells) or not seeds:
            continue
        merged = [merge([found[seed] for seed in seeds]) for found in present.values()]
        worse = min(merged, key=lambda line: line.get("robust", float("inf")))
        counts = [line["as_published"] for line in merged if line["as_published"] is not None]
        line = {**worse, "attack": f"{worse['attack']}, the worse of {len(merged)}"}
        line |= {"as_published": min(counts, default=None), "differs": min(texts[defense], key=len) or None}
        if "robust" in worse:
            line["interval"] = f"{worse['robust_low']:.1f}-{worse['robust_high']:.1f}"
        lines.append(line)
    return lines


def _comparable(
    cells: Mapping[str, Sequence[tuple[Record, str]]],
) -> tuple[dict[str, dict[str, dict[int, Record]]], dict[str, list[str]]]:
    """Records and texts by all that identifies a cell but its attack: defense -> experiment -> seed -> record."""
    same: dict[str, dict[str, dict[int, Record]]] = defaultdict(lambda: defaultdict(dict))
    texts: dict[str, list[str]] = defaultdict(list)
    for experiment, found in cells.items():
        for record, text in found:
            identity = {key: value for key, value in record.identity().items() if key not in ATTACKS}
            defense = json.dumps(identity, sort_keys=True)
            if any(word.startswith("attack.") for word in text.split()):
                continue  # another attack than the experiment's: not the one that is compared
            same[defense][experiment][record.summary()["seed"]] = record
            texts[defense].append(text)
    return same, texts


def _images(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["dataset"], line["n"], line["eps"]


def _compared(line: Mapping[str, Any]) -> int:
    return len(line["records"].split()) // line["seeds"]


def per_image(by_seed: Sequence[Sequence[Record]], asked_for: int) -> dict[str, Any]:
    """The line of the worst attack per image, each seed's own.

    Args:
        by_seed: for every seed the records of one defense under several attacks, on the same images.
        asked_for: how many attacks there should be.
    """
    scored = [worst_per_image(cells) for cells in by_seed]
    lost = np.any([failed for _, _, failed in scored], axis=0)
    natural = accuracy(np.asarray([clean for _, clean, _ in scored]))
    first, compared = by_seed[0][0].summary(), len(by_seed[0])
    line: dict[str, Any] = {"natural": natural.mean, "natural_low": natural.low, "natural_high": natural.high}
    line |= {"natural_any_of_k": natural.any_of_k, "natural_majority_of_k": natural.majority_of_k}
    line |= {key: first[key] for key in ("eps", "norm", "n", "score_draws")}
    line |= {"dataset": first["dataset_name"], "view": "per sample", "seeds": len(by_seed), "failed": int(lost.sum())}
    line |= {"attack": f"worst of {compared}" + ("" if compared == asked_for else f" ({asked_for} asked for)")}
    line |= {"status": "partial" if lost.any() else "complete"}
    line |= {"records": " ".join(record.folder.name for cells in by_seed for record in cells)}
    if not lost.all():
        robust = accuracy(np.asarray([right[~lost] for right, _, _ in scored]))
        line |= {"robust": robust.mean, "robust_low": robust.low, "robust_high": robust.high}
        line |= {"any_of_k": robust.any_of_k, "majority_of_k": robust.majority_of_k}
        line |= {"interval": f"{robust.low:.1f}-{robust.high:.1f}"}
    return line


def worst_per_image(cells: Sequence[Record]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Of one seed: (images, draws) right under the worst attack and on clean images, (images,) failed under every attack."""
    samples = [record.samples() for record in cells]
    if any(other["id"] != samples[0]["id"] for other in samples):
        raise ValueError("worst_of: the records hold different images: measure them with the same n and split")
    lacking = [record.folder.name for record, one in zip(cells, samples, strict=True) if "attacked_damage" not in one]
    if lacking:
        raise ValueError(
            f"worst_of: record {lacking[0]} has no attacked_damage, it is older: delete it and measure again"
        )
    failed = np.asarray([one["failed"] for one in samples], dtype=bool)
    damage = np.where(failed, -np.inf, [one["attacked_damage"] for one in samples])
    guesses = np.asarray([one["attacked_prediction"] for one in samples])
    labels = np.asarray(samples[0]["label"])
    right = guesses[damage.argmax(0), np.arange(len(labels))] == labels[:, None]
    clean: np.ndarray[Any, Any] = np.asarray(samples[0]["clean_prediction"]) == labels[:, None]
    return right, clean, np.asarray(failed.all(0))
