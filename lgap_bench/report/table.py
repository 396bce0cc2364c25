"""Records -> one table: a row per cell, seeds merged. It never runs a model."""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgap_bench.metric.accuracy import accuracy
from lgap_bench.record import Record, records

COLUMNS = (
    "row", "purifier", "attack", "view", "eps", "n", "natural", "robust", "robust_low", "robust_high", "any_of_k",
    "caption_label_clean", "caption_label_attacked", "seconds",
)  # fmt: skip
MORE = (
    "dataset", "classifier", "captioner", "norm", "seeds", "score_draws", "natural_low", "natural_high",
    "natural_any_of_k", "natural_majority_of_k", "majority_of_k", "undefended_natural", "undefended_robust",
    "as_published", "failed", "status", "records",
)  # fmt: skip


def merge(cells: Sequence[Record], title: str = "") -> dict[str, Any]:
    """One row from records that differ in their seed alone: accuracies over seeds, images and draws, with intervals."""
    summaries = [record.summary() for record in cells]
    first = summaries[0]
    samples = [record.samples() for record in cells]
    natural = accuracy(_correct(samples, "clean", keep_failed=True))
    attacked = _correct(samples, "attacked", keep_failed=False)
    robust = accuracy(attacked) if attacked.shape[1] else None
    row: dict[str, Any] = {
        key: first[f"{key}_name"] for key in ("purifier", "attack", "view", "dataset", "classifier", "captioner")
    }
    row |= {key: first[key] for key in ("eps", "norm", "n", "score_draws")}
    row |= {"row": title or _title(first), "seeds": len(cells), "status": max(s["status"] for s in summaries)}
    row |= {"natural": natural.mean, "natural_low": natural.low, "natural_high": natural.high}
    row |= {"natural_any_of_k": natural.any_of_k, "natural_majority_of_k": natural.majority_of_k}
    row |= {"records": " ".join(record.folder.name for record in cells)}
    if robust is not None:
        row |= {"robust": robust.mean, "robust_low": robust.low, "robust_high": robust.high}
        row |= {"any_of_k": robust.any_of_k, "majority_of_k": robust.majority_of_k}
    for key in (
        "caption_label_clean",
        "caption_label_attacked",
        "undefended_natural",
        "undefended_robust",
        "as_published",
    ):
        values = [s[key] for s in summaries if s.get(key) is not None]
        row[key] = float(np.mean(values)) if values else None
    row["failed"] = sum(s["failed"] for s in summaries)
    row["seconds"] = sum(record.run()["seconds"] for record in cells)
    return row


def grouped(cells: Sequence[Record]) -> list[list[Record]]:
    """Records that differ in their seed alone, together; in the order in which each group first appears."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in cells:
        groups[json.dumps({**record.identity(), "seed": None}, sort_keys=True)].append(record)
    return [sorted(group, key=lambda record: record.summary()["seed"]) for group in groups.values()]


def as_text(rows: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """An aligned plain-text table; numbers with one digit, missing values as a dash."""
    cells = [[column for column in columns], *([_shown(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [all(isinstance(row.get(c), int | float | None) for row in rows) for c in columns]
    lines = [
        "  ".join(
            text.rjust(w) if right else text.ljust(w) for text, w, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def as_markdown(rows: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """The same table for a page."""
    lines = [list(columns), ["---"] * len(columns), *([_shown(row.get(column)) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_csv(rows: Sequence[dict[str, Any]], path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """The rows with full precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """`lgap-bench report`: every record below the outputs folder as one table."""
    parser = argparse.ArgumentParser(description="One table of all records, seeds merged.")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("--csv", type=Path, help="also write the table, with more columns, to this file")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--captions", action="store_true", help="what the attacks did to the captions, instead")
    arguments = parser.parse_args()
    found = records(arguments.outputs)
    if not found:
        raise ValueError(
            f"--outputs={arguments.outputs}: no finished record in {arguments.outputs / 'records'}: run a cell first, `lgap-bench run`"
        )
    if arguments.captions:
        from lgap_bench.report.captions import print_tables

        return print_tables(found, arguments.markdown, arguments.csv)
    rows = [merge(group) for group in grouped(found)]
    rows.sort(
        key=lambda row: (
            row["dataset"],
            row["norm"],
            row["eps"],
            row["purifier"],
            row["captioner"] or "",
            -(row.get("robust") or 0.0),
        )
    )
    show = as_markdown if arguments.markdown else as_text
    print(show(rows, (*COLUMNS[:6], "seeds", *COLUMNS[6:])))
    if arguments.csv:
        write_csv(rows, arguments.csv, (*COLUMNS, *MORE))
        print(f"written to {arguments.csv}")


def _correct(samples: Sequence[dict[str, list[Any]]], name: str, keep_failed: bool) -> np.ndarray[Any, Any]:
    """(seeds, images, draws) bool; images whose attack failed in any seed are left out of the attacked ones."""
    guesses = np.asarray([np.asarray(table[f"{name}_prediction"]) for table in samples])
    labels = np.asarray([table["label"] for table in samples])
    kept = np.ones(labels.shape[1], bool) if keep_failed else ~np.asarray([table["failed"] for table in samples]).any(0)
    return (guesses == labels[:, :, None])[:, kept]


def _title(summary: dict[str, Any]) -> str:
    captioner = summary["captioner_name"]
    plain = captioner is None or captioner.endswith("/blip")
    return summary["purifier_name"] if plain else f"{summary['purifier_name']} ({captioner} caption)"


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
