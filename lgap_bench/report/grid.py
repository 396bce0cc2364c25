"""The paper's figure 2 for a cell: clean, attacked and purified images with captions and predictions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lgap_bench.record import Record
from lgap_bench.runtime import files

RIGHT, WRONG, INK = "#1b7837", "#b2182b", "#222222"


def draw_grid(record: Record, classes: Sequence[str]) -> Path:
    """Write grid.png into the record: four rows, one column per kept image; returns its path."""
    return draw_grids([(record, "")], classes, record.folder / "grid.png")


def draw_grids(records: Sequence[tuple[Record, str]], classes: Sequence[str], out: Path, columns: int = 8) -> Path:
    """Several records' grids under one another, each headed by its title; green is right, red is wrong."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [_rows(record) for record, _ in records]
    figure = Figure(figsize=(1.55 * columns + 1.2, sum(2.05 * len(rows) + 0.7 for rows in heights)), dpi=80)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(records), 1, height_ratios=[len(rows) + 0.35 for rows in heights], hspace=0.14)
    for place, ((record, title), rows) in enumerate(zip(records, heights, strict=True)):
        _draw(figure, grid[place], record, title, rows, classes, columns)
    files.write(out, lambda stream: figure.savefig(stream, format="png", bbox_inches="tight"))
    return out


def _rows(record: Record) -> list[tuple[str, str, str]]:
    """(picture, row title, sample column of the prediction) of each row; the identity purifier has no purified rows."""
    rows = [("clean", "clean", "clean_undefended"), ("attacked", "attacked", "attacked_undefended")]
    if record.summary()["purifier_name"] != "none":
        rows.insert(1, ("purified_clean", "clean,\npurified", "clean_prediction"))
        rows.append(("purified_attacked", "attacked,\npurified", "attacked_prediction"))
    return rows


def _draw(
    figure: Any,
    place: Any,
    record: Record,
    title: str,
    rows: list[tuple[str, str, str]],
    classes: Sequence[str],
    columns: int,
) -> None:
    summary, samples, pictures = record.summary(), record.samples(), record.pictures()
    shown = min(columns, len(pictures["clean"]))
    axes = place.subgridspec(len(rows), columns, hspace=0.62, wspace=0.12).subplots(squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])  # ticks that are hidden would still be measured: half of the time
        axis.axis("off")
    for r, (picture, name, column) in enumerate(rows):
        axes[r, 0].text(
            -0.18, 0.5, name, transform=axes[r, 0].transAxes, ha="right", va="center", fontsize=9, color=INK
        )
        for i in range(shown):
            axis, guess = axes[r, i], samples[column][i]
            first = guess[0] if isinstance(guess, list) else guess
            axis.imshow(pictures[picture][i].clip(0, 1), interpolation="nearest")
            axis.set_title(classes[first], fontsize=9, pad=2, color=RIGHT if first == samples["label"][i] else WRONG)
            caption = samples.get(f"{picture}_caption")
            if caption:
                named = samples[f"{picture}_caption_label"][i]
                text = "\n".join(textwrap.wrap(caption[i] or "(empty)", 19))
                axis.text(
                    0.5,
                    -0.05,
                    text,
                    transform=axis.transAxes,
                    ha="center",
                    va="top",
                    fontsize=6,
                    color=INK if named else WRONG,
                )
    robust = summary.get("robust", {}).get("mean", float("nan"))
    heading = title or (
        f"{summary['purifier_name']} under {summary['attack_name']} (view {summary['view']}, {summary['norm']} "
        f"{summary['eps']}): natural {summary['natural']['mean']:.1f} %, robust {robust:.1f} %"
    )
    axes[0, 0].text(
        0.0,
        1.32,
        heading,
        transform=axes[0, 0].transAxes,
        ha="left",
        va="bottom",
        fontsize=11,
        weight="bold",
        color=INK,
    )
