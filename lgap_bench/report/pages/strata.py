"""The same records by how many objects an image holds (conditioned denoising, section 4.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgap_bench.metric.accuracy import accuracy
from lgap_bench.metric.labels import mean_average_precision
from lgap_bench.record import Record, records
from lgap_bench.report.missing import unrun
from lgap_bench.report.page import Page, Table, Unmeasured, judged
from lgap_bench.report.rows import VERDICTS, Merge, grouped, merge, requested_by, settings_line
from lgap_bench.task.single_label import SINGLE_LABEL

COLUMNS = ("row", "objects", "images", "natural", "robust", "interval", "natural_map", "map", "region")
MOST = 4  # groups, each of about as many images


def page(name: str, table: Mapping[str, Any], outputs: Path, dataset: str | None, merge: Merge = merge) -> Page:
    """One line per experiment and group of images. Raises ValueError where there is no record of its experiments."""
    wanted = table["strata"]
    lines: list[dict[str, Any]] = []
    merged, found = [], records(outputs)
    for experiment in wanted["experiments"]:
        for group in grouped([each for each in found if requested_by(each, experiment, dataset)]):
            if "objects" in group[0].samples():
                lines += strata(group)
                merged.append(merge(group))
    if not lines:
        raise Unmeasured(f"table={name}: no record of its experiments in {outputs / 'records'}: run {wanted['script']}")
    return Page(
        name.replace("/", "-"),
        table["title"],
        settings_line(merged),
        [Table(COLUMNS, lines)],
        notes=[*table.get("notes", ()), *unrun(wanted["experiments"], found, dataset)],
    )


def strata(cells: Sequence[Record]) -> list[dict[str, Any]]:
    """Accuracy of the top label and mean average precision of records that differ in their seed alone, by objects per image."""
    samples = [record.samples() for record in cells]
    summary, count = cells[0].summary(), np.asarray(samples[0]["objects"])
    verdict = max((record.verdict()[0] for record in cells), key=VERDICTS.index)
    kept = ~np.asarray([table["failed"] for table in samples], bool).any(0)
    right = {name: np.asarray([SINGLE_LABEL.correct(each, name) for each in samples]) for name in ("clean", "attacked")}
    lines = []
    for low, high in _bounds(count):
        rows = kept & (count >= low) & (count <= high)
        robust, natural = accuracy(right["attacked"][:, rows]), accuracy(right["clean"][:, rows])
        line = {"row": summary["purifier_name"], "objects": str(low) if low == high else f"{low}-{high}"}
        line |= {"images": int(rows.sum()), "natural": natural.mean, "robust": judged(robust.mean, verdict)}
        line["interval"] = f"{robust.low:.1f}-{robust.high:.1f}"
        if "labels" in samples[0]:
            truth = np.asarray(samples[0]["labels"], bool)[rows]
            for name, key in (("clean", "natural_map"), ("attacked", "map")):
                scores = np.concatenate(
                    [np.asarray(each[f"{name}_scores"], np.float32).swapaxes(0, 1) for each in samples]
                )
                line[key] = mean_average_precision(scores[:, rows], truth)
            line["map"] = judged(line["map"], verdict)
        if "attacked_region" in samples[0]:
            line["region"] = 100 * float(np.mean([np.asarray(each["attacked_region"])[rows] for each in samples]))
        lines.append(line)
    return lines


def _bounds(count: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    """Ranges of the number of objects: one per number where there are few, else groups of about as many images."""
    values = np.unique(count)
    if len(values) <= MOST:
        return [(int(value), int(value)) for value in values]
    edges = np.unique(np.quantile(count, np.linspace(0, 1, MOST + 1)[1:-1], method="lower"))
    lows = [int(values[0]), *(int(edge) + 1 for edge in edges)]
    highs = [*(int(edge) for edge in edges), int(values[-1])]
    return [(low, high) for low, high in zip(lows, highs, strict=True) if ((count >= low) & (count <= high)).any()]
