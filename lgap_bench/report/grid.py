"""The paper's figure 2 for a cell: clean, attacked and purified images with captions and predictions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgap_bench.record import Record
from lgap_bench.report import figure
from lgap_bench.report.figure import INK, RIGHT, WRONG
from lgap_bench.report.page import judged, shown
from lgap_bench.task.single_label import SINGLE_LABEL

Titled = tuple[Record, str]  # a record and its heading; an empty one is made from the record


class Line(NamedTuple):
    """A row of a grid: which pictures, what stands before them, the samples' column of what they are taken for."""

    picture: str
    title: str
    column: str


def draw_grid(record: Record, classes: Sequence[str]) -> Path:
    """Write grid.png into the record: four rows, one column per kept image; returns its path."""
    return figure.save(grids([(record, "")], classes), record.folder / "grid.png")


def grids(records: Sequence[Titled], classes: Sequence[str], columns: int = 8) -> Any:
    """Several records' grids under one another, each headed by its title; green is right, red is wrong."""
    heights = [lines_of(record) for record, _ in records]
    size = (1.55 * columns + 1.2, sum(2.05 * len(lines) + 0.7 for lines in heights))
    drawn = figure.canvas(*size, dpi=80, constrained=False)
    place = drawn.add_gridspec(len(records), 1, height_ratios=[len(lines) + 0.35 for lines in heights], hspace=0.14)
    for i, ((record, title), lines) in enumerate(zip(records, heights, strict=True)):
        axes = place[i].subgridspec(len(lines), columns, hspace=0.62, wspace=0.12).subplots(squeeze=False)
        _draw(axes, record, title or _heading(record), lines, classes)
    return drawn


def lines_of(record: Record) -> list[Line]:
    """The rows of a record; the identity purifier has no purified ones."""
    lines = [Line("clean", "clean", "clean_undefended"), Line("attacked", "attacked", "attacked_undefended")]
    if record.summary()["purifier_name"] != "none":
        lines.insert(1, Line("purified_clean", "clean,\npurified", "clean_prediction"))
        lines.append(Line("purified_attacked", "attacked,\npurified", "attacked_prediction"))
    if "region_attacked" in record.pictures():
        lines.insert(-1, Line("region_attacked", "what is\nregenerated", ""))
    return lines


def _draw(axes: Any, record: Record, title: str, lines: Sequence[Line], classes: Sequence[str]) -> None:
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])  # ticks that are hidden would still be measured: half of the time
        axis.axis("off")
    samples, pictures = record.samples(), record.pictures()
    for row, line in zip(axes, lines, strict=True):
        _text(row[0], -0.18, 0.5, line.title, ha="right", va="center", fontsize=9)
        guesses, right = first_draw(samples, line.column) if line.column else (None, None)
        captions = samples.get(f"{line.picture}_caption")
        for i, (axis, image) in enumerate(zip(row, pictures[line.picture], strict=False)):
            axis.imshow(image.clip(0, 1), interpolation="nearest")
            if guesses is not None and right is not None:
                axis.set_title(classes[guesses[i]], fontsize=9, pad=2, color=RIGHT if right[i] else WRONG)
            if captions:
                named = samples[f"{line.picture}_caption_label"][i]
                text = "\n".join(textwrap.wrap(captions[i] or "(empty)", 19))
                _text(axis, 0.5, -0.05, text, ha="center", va="top", fontsize=6, color=INK if named else WRONG)
    _text(axes[0, 0], 0.0, 1.32, title, ha="left", va="bottom", fontsize=11, weight="bold")


def first_draw(samples: dict[str, list[Any]], column: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What every image is taken for in the first draw, and whether that is right."""
    guesses = np.asarray(samples[column]).reshape(len(samples["label"]), -1)[:, :1]
    if "labels" in samples:  # several classes per image, one of which has to be met
        truth = np.asarray(samples["labels"], bool)
        return guesses[:, 0], np.take_along_axis(truth, guesses, 1)[:, 0]
    right = SINGLE_LABEL.correct({"shown_prediction": guesses, "label": samples["label"]}, "shown")
    return guesses[:, 0], right[:, 0]


def _heading(record: Record) -> str:
    s = record.summary()
    robust = shown(judged(s.get("robust", {}).get("mean", float("nan")), record.verdict()[0]))
    return (
        f"{s['purifier_name']} under {s['attack_name']} (view {s['view']}, {s['norm']} "
        f"{s['eps']}): natural {s['natural']['mean']:.1f} %, robust {robust} %"
    )


def _text(axis: Any, x: float, y: float, text: str, **style: Any) -> None:
    axis.text(x, y, text, transform=axis.transAxes, **{"color": INK, **style})
