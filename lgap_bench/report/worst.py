"""Several attacks on one defense as one line: the worst per image, or the one with the lowest robust accuracy.

The worst attack is chosen per image on `select` draws and scored on `score` draws that no attack has seen.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lgap_bench.metric.accuracy import accuracy
from lgap_bench.record import Record
from lgap_bench.report.rows import VERDICTS, Merge, defense, interval, marked, merge
from lgap_bench.task.single_label import SINGLE_LABEL

Cells = Mapping[str, Sequence[tuple[Record, str]]]  # experiment -> records with the overrides that single them out
BySeed = Mapping[int, Mapping[str, Record]]  # seed -> attack -> record, of one defense


@dataclass(frozen=True)
class WorstCase:
    """Of one seed: `right` (images, draws) under each image's worst attack, `clean` likewise, `failed` (images,) under all."""

    right: np.ndarray[Any, Any]
    clean: np.ndarray[Any, Any]
    failed: np.ndarray[Any, Any]


def worst_per_image(cells: Cells) -> list[dict[str, Any]]:
    """One line per defense, data set, budget and n that at least two of the experiments were measured on.

    The seeds are those that met the largest set of attacks. A sample that failed under every attack is left out and
    counted; the clean control is natural accuracy on the same draws. `attack` says of how many it is the worst, and how
    many the table has: lines of different sets are not to be compared.
    """
    lines = []
    for met, texts in _by_defense(cells):
        by_seed = most_attacked(met)
        if len(next(iter(by_seed.values()))) > 1:
            line = worst_line([list(found.values()) for found in by_seed.values()], len(cells))
            lines.append({**line, "differs": min(texts, key=len) or None})
    # Beside a line of seven attacks, one of two on another training of the same defense would only confuse.
    most = {_images(line): max(o["compared"] for o in lines if _images(o) == _images(line)) for line in lines}
    return [line for line in lines if line["compared"] == most[_images(line)]]


def lowest_of(cells: Cells, merge: Merge = merge) -> list[dict[str, Any]]:
    """As papers report AutoAttack's versions: per defense the line with the lowest robust accuracy, all images together.

    One line per defense that all of the experiments were measured on, on the seeds that all of them have. `as_published`
    is the lowest of the library's own counts.
    """
    lines = []
    for met, texts in _by_defense(cells):
        complete = [seed for seed, found in sorted(met.items()) if len(found) == len(cells)]
        if not complete:
            continue
        merged = [merge([met[seed][name] for seed in complete]) for name in cells]
        lowest = min(merged, key=lambda line: line.get("robust", float("inf")))
        counts = [line["as_published"] for line in merged if line["as_published"] is not None]
        line = {**lowest, "attack": f"{lowest['attack']}, the worse of {len(merged)}", "interval": interval(lowest)}
        lines.append({**line, "as_published": min(counts, default=None), "differs": min(texts, key=len) or None})
    return lines


def most_attacked(met: BySeed) -> dict[int, dict[str, Record]]:
    """The seeds that met the largest set of attacks, with their records; one that met fewer would look robust."""
    largest = max((set(found) for found in met.values()), key=len)
    return {seed: dict(met[seed]) for seed in sorted(met) if set(met[seed]) == largest}


def worst_line(by_seed: Sequence[Sequence[Record]], of: int) -> dict[str, Any]:
    """The line of the worst attack per image, each seed's own.

    Args:
        by_seed: for every seed the records of one defense under several attacks, on the same images.
        of: how many attacks the table has for it.
    """
    scored = [worst_case(cells) for cells in by_seed]
    lost = np.any([each.failed for each in scored], axis=0)
    natural = accuracy(np.asarray([each.clean for each in scored]))
    first, compared = by_seed[0][0].summary(), len(by_seed[0])
    line: dict[str, Any] = {"natural": natural.mean, "natural_low": natural.low, "natural_high": natural.high}
    line |= {"natural_any_of_k": natural.any_of_k, "natural_majority_of_k": natural.majority_of_k}
    line |= {key: first[key] for key in ("eps", "norm", "n", "score_draws")}
    line |= {"dataset": first["dataset_name"], "view": "per sample", "seeds": len(by_seed), "failed": int(lost.sum())}
    line |= {"compared": compared, "attack": f"worst of {compared}" + ("" if compared == of else f" ({of} asked for)")}
    line |= {"status": "partial" if lost.any() else "complete"}
    line |= {"records": " ".join(record.folder.name for cells in by_seed for record in cells)}
    if not lost.all():
        robust = accuracy(np.asarray([each.right[~lost] for each in scored]))
        line |= {"robust": robust.mean, "robust_low": robust.low, "robust_high": robust.high}
        line |= {"any_of_k": robust.any_of_k, "majority_of_k": robust.majority_of_k}
        line["interval"] = interval(line)
    # As good as the best of them: none of the others can take back what a sound one has shown.
    verdicts = [cell.verdict()[0] for cells in by_seed for cell in cells]
    best = min(verdicts, key=VERDICTS[1:].index) if "not judged" not in verdicts else "not judged"
    return {**line, **marked(line, best), "verdict": best}


def worst_case(cells: Sequence[Record]) -> WorstCase:
    """Several attacks of one seed, each image under its own worst. Raises ValueError for records of different images."""
    samples = [record.samples() for record in cells]
    if any(other["id"] != samples[0]["id"] for other in samples):
        raise ValueError("worst per image: the records hold different images: measure them with the same n and split")
    lacking = [record.folder.name for record, one in zip(cells, samples, strict=True) if "attacked_damage" not in one]
    if lacking:
        raise ValueError(
            f"worst per image: record {lacking[0]} has no attacked_damage, it is older: delete it and measure again"
        )
    failed = np.asarray([one["failed"] for one in samples], dtype=bool)
    wrongness = np.where(failed, -np.inf, [one["attacked_damage"] for one in samples])
    right = np.asarray([SINGLE_LABEL.correct(one, "attacked") for one in samples])
    chosen = right[wrongness.argmax(0), np.arange(right.shape[1])]
    return WorstCase(chosen, SINGLE_LABEL.correct(samples[0], "clean"), np.asarray(failed.all(0)))


def _by_defense(cells: Cells) -> list[tuple[dict[int, dict[str, Record]], list[str]]]:
    """Per defense its records by seed and experiment, and the overrides that they were requested with."""
    met: dict[str, dict[int, dict[str, Record]]] = defaultdict(lambda: defaultdict(dict))
    texts: dict[str, list[str]] = defaultdict(list)
    for experiment, found in cells.items():
        for record, text in found:
            if any(word.startswith("attack.") for word in text.split()):
                continue  # another attack than the experiment's: not the one that is compared
            key = json.dumps(defense(record), sort_keys=True)
            met[key][record.summary()["seed"]][experiment] = record
            texts[key].append(text)
    return [(by_seed, texts[key]) for key, by_seed in met.items()]


def _images(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["dataset"], line["n"], line["eps"]
