"""What a row says of images with several labels: precision, average precision, attack success in three readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lgap_bench.metric.labels import success, worth
from lgap_bench.report.page import AtLeast, judged

COLUMNS = ("natural_precision", "precision", "natural_map", "map", "success", "success_changed", "success_of_correct")
BOUNDED = ("map", "precision", "precision_micro", "precision_sample")  # under attack, so that a verdict bounds them
READINGS = {"success": "not_in_image", "success_changed": "changed", "success_of_correct": "of_correct"}
Samples = Sequence[Mapping[str, Any]]


def several(samples: Samples, summaries: Sequence[Mapping[str, Any]], verdict: str) -> dict[str, Any]:
    """The numbers of records that differ in their seed alone, over seeds, draws and images; nothing where images have one label.

    `precision` is macro at the threshold that was chosen on clean validation images. The undefended classifier's numbers are
    on the same images, so those after a blind attack are what the paper calls adversarial images.
    """
    if "labels" not in summaries[0]:
        return {}
    held = summaries[0]["labels"]
    truth = np.asarray(samples[0]["labels"], bool)
    kept = ~np.asarray([table["failed"] for table in samples], bool).any(0)
    row: dict[str, Any] = {"threshold": held["threshold"]}
    for name, prefix in (("clean", "natural_"), ("attacked", "")):
        rows = kept if name == "attacked" else np.ones_like(kept)
        for source, before in ((name, ""), (f"{name}_undefended", "undefended_")):
            if rows.any():
                bounds = not before  # no table shows those of the undefended classifier, and they take half of the time
                scores = _scores(samples, source)[:, rows]
                row |= _worth(scores, truth[rows], held["threshold"], f"{before}{prefix}", bounds)
    if kept.any():
        for end, before in (("", ""), ("_undefended", "undefended_")):
            clean, attacked = (_scores(samples, f"{name}{end}")[:, kept] for name in ("clean", "attacked"))
            found = success(clean, attacked, truth[kept]) | _of_correct(samples, end, truth, kept)
            for key, reading in READINGS.items():
                for part, value in found.get(reading, {}).items():
                    row[f"{before}{key}" + ("" if part == "mean" else f"_{part}")] = value
    row["mean_l2"] = float(np.mean([summary["mean_l2"] for summary in summaries]))
    return _marked(row, verdict)


def _of_correct(samples: Samples, end: str, truth: Any, kept: Any) -> dict[str, Any]:
    """Success on images that were right before, each seed by the majority of its own draws, the mean of all seeds.

    A majority of all seeds' draws would be another measure: two of two draws are asked for more often than four of six. The
    interval is the mean of theirs, since all are of the same images.
    """
    held = []
    for table in samples:
        clean, attacked = (_scores([table], f"{name}{end}")[:, kept] for name in ("clean", "attacked"))
        held += [reading for key, reading in success(clean, attacked, truth[kept]).items() if key == "of_correct"]
    return {"of_correct": {part: float(np.mean([each[part] for each in held])) for part in held[0]}} if held else {}


def _marked(row: Mapping[str, Any], verdict: str) -> dict[str, Any]:
    """An upper bound of robustness is a lower bound of success."""
    marked = {key: judged(row[key], verdict) for key in BOUNDED if key in row}
    if verdict == "upper bound":
        marked |= {key: AtLeast(row[key]) for key in READINGS if key in row}
    return {**row, **marked}


def _scores(samples: Samples, name: str) -> np.ndarray[Any, Any]:
    """(seeds x draws, images, classes); a bare classifier's are the same for every seed, clean ones at least."""
    held = [np.asarray(table[f"{name}_scores"], np.float32) for table in samples]
    return np.concatenate([each[None] if each.ndim == 2 else each.swapaxes(0, 1) for each in held])


def _worth(scores: Any, truth: Any, threshold: float, prefix: str, intervals: bool) -> dict[str, Any]:
    found = worth(scores, truth, threshold, intervals=intervals)
    return {f"{prefix}{key.replace('_macro', '')}": value for key, value in found.items() if key != "per_class"}
