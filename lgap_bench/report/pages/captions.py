"""Records -> what the captions did: faithfulness per cell, failure rate per class. It never runs a model.

BLEU and ROUGE-L are computed from the captions that a record holds, so that records of earlier versions count as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.metric.accuracy import accuracy
from lgap_bench.metric.caption import bleu, rouge_l
from lgap_bench.record import Record
from lgap_bench.report.page import Page, Table, judged
from lgap_bench.report.rows import VERDICTS, apart, grouped
from lgap_bench.task.single_label import SINGLE_LABEL

Flags = NDArray[np.bool_]
Rows = list[dict[str, Any]]
FAR = 0.5  # caption distance (1 - BLEU) that splits near from far; in the digits' template one word changed is at most 0.40
SAME = 1e-9  # rounding
COLUMNS = (
    "attack", "captioner", "view", "eps", "n", "seeds", "label_clean", "label_attacked", "failure", "target", "bleu",
    "rouge", "clip_clean", "clip_attacked", "kept_n", "kept_robust", "kept_low", "kept_high", "lost_n", "lost_robust",
    "lost_low", "lost_high", "robust", "robust_low", "robust_high",
)  # fmt: skip
DISTANCES = tuple(f"{name}_{key}" for name in ("same", "near", "far") for key in ("n", "robust", "low", "high"))


def fidelity(groups: Sequence[Sequence[Record]]) -> Rows:
    """One row per group of records that differ in their seed alone (`rows.grouped`), where there are captions.

    Percent, over pairs of image and seed whose attack did not fail. `failure`: attacked captions without the label word
    among images whose clean caption has it; `target`: attacked captions that say what a targeted attack aimed at. Robust
    accuracy, with its number of pairs and interval: among images whose attacked caption kept the label or lost it; and by
    the distance 1 - BLEU of the attacked caption from the clean one, in fixed bins, since template captions have too many
    ties for terciles: `same` 0, `near` (0, 0.5], `far` (0.5, 1]. Images are not put into a group at random: what is hard
    for the captioner may be hard for the classifier too, so these columns show an association.
    """
    return [_row(group) for group in map(_Cell, groups) if group.captioned]


def per_class(groups: Sequence[Sequence[Record]]) -> Rows:
    """`failure` per class: rows are classes (`n`: most pairs of image and seed behind a number), a column per group."""
    cells = [cell for cell in map(_Cell, groups) if cell.captioned]
    titles = _titles(cells)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for cell, title in zip(cells, titles, strict=True):
        data = cell.summary["dataset_name"]
        for label, name in enumerate(cell.classes):
            row = rows.setdefault((data, name), {"dataset": data, "class": name, "n": 0})
            counted = cell.kept & cell.clean_label & (cell.label == label)
            row[title] = _share(~cell.label_kept, counted)
            row["n"] = max(row["n"], int(counted.sum()))
    return list(rows.values())


def page(cells: Sequence[Record]) -> Page:
    """Both tables; `..._classes.csv` holds the second. Raises ValueError where no record holds captions."""
    groups = sorted(grouped(cells), key=_order)
    rows, classes = fidelity(groups), per_class(groups)
    if not rows:
        raise ValueError("--captions: no record holds captions: run a cell with purifier=lgap first")
    columns, by_class = [c for c in COLUMNS if not _empty(rows, c)], tuple(classes[0])
    exported = ("purifier", "dataset", "norm", *COLUMNS, *DISTANCES, "records")
    return Page(
        "captions", "",
        tables=[Table(columns, rows), Table(("attack", "captioner", *DISTANCES), rows), Table(by_class, classes)],
        data=[Table(exported, rows), Table(by_class, classes, name="classes")],
    )  # fmt: skip


class _Cell:
    """Records that differ in their seed alone, as arrays (seeds, images); `kept` are those that count."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records, self.summary = records, records[0].summary()
        self.tables = [record.samples() for record in records]
        self.captioned = all("attacked_caption" in table for table in self.tables)
        if not self.captioned:
            return
        self.classes = records[0].classes()
        self.label = self.column("label")
        self.clean_label = self.column("clean_caption_label").astype(bool)
        self.label_kept = self.column("attacked_caption_label").astype(bool)
        # as in the main table: an image whose attack failed in any seed is left out of all
        failed = self.column("failed").any(axis=0)
        self.kept = np.broadcast_to(~failed, self.label.shape)
        self.correct = np.asarray([SINGLE_LABEL.correct(table, "attacked") for table in self.tables])

    def column(self, name: str) -> NDArray[Any]:
        """A column of every seed, (seeds, images)."""
        return np.asarray([table[name] for table in self.tables])

    def mean(self, name: str) -> float | None:
        """Mean of a column over what counts, None where a record lacks it."""
        if any(name not in table or None in table[name] for table in self.tables) or not self.kept.any():
            return None
        return float(self.column(name)[self.kept].mean())

    def likeness(self, measure: Callable[[str, str], float]) -> NDArray[np.float64]:
        """A measure of every attacked caption against the clean one, (seeds, images)."""
        pairs = [zip(t["attacked_caption"], t["clean_caption"], strict=True) for t in self.tables]
        return np.asarray([[measure(a, c) for a, c in each] for each in pairs])


def _row(cell: _Cell) -> dict[str, Any]:
    s, kept = cell.summary, cell.kept
    row: dict[str, Any] = {key: s[f"{key}_name"] for key in ("attack", "captioner", "purifier", "dataset")}
    row |= {key: s[key] for key in ("view", "eps", "norm", "n")} | {"seeds": len(cell.records)}
    row |= {"records": " ".join(record.folder.name for record in cell.records)}
    if kept.any():
        found = accuracy(cell.correct, among=kept)
        worst = max((record.verdict()[0] for record in cell.records), key=VERDICTS.index)
        row |= {"robust": judged(found.mean, worst), "robust_low": found.low, "robust_high": found.high}
    row |= {"label_clean": _share(cell.clean_label, kept), "label_attacked": _share(cell.label_kept, kept)}
    row["failure"] = _share(~cell.label_kept, kept & cell.clean_label)
    target = cell.mean("attacked_caption_target")
    row["target"] = None if target is None else 100 * target
    likeness = cell.likeness(bleu)
    for name, values in (("bleu", likeness), ("rouge", cell.likeness(rouge_l))):
        row[name] = 100 * float(values[kept].mean()) if kept.any() else None
    for name in ("clean", "attacked"):
        row[f"clip_{name}"] = cell.mean(f"{name}_caption_clip")
    distance = 1 - likeness
    groups = {
        "kept": cell.label_kept,
        "lost": ~cell.label_kept,
        "same": distance <= SAME,
        "near": (distance > SAME) & (distance <= FAR),
        "far": distance > FAR,
    }
    for name, members in groups.items():
        row |= _robust(cell, name, members & kept)
    return row


def _robust(cell: _Cell, name: str, among: Flags) -> dict[str, Any]:
    """Robust accuracy with its interval among some pairs of seed and image, and how many there are."""
    row: dict[str, Any] = {f"{name}_n": int(among.sum())}
    if among.any():
        found = accuracy(cell.correct, among=among)
        row |= {f"{name}_robust": found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
    return row


def _share(flags: Flags, among: Flags) -> float | None:
    """Percent of the flags that are set, None where nothing is counted."""
    return 100 * float(flags[among].mean()) if among.any() else None


def _titles(cells: Sequence[_Cell]) -> list[str]:
    """A column name per cell: the attack, and where that is not enough what sets it apart; the record as a last resort."""
    attacks = [cell.summary["attack_name"] for cell in cells]
    facts = [
        {"captioner": str(s["captioner_name"]), "threat": f"{s['norm']} {s['eps']}"}
        for s in (cell.summary for cell in cells)
    ]
    names = [" ".join([a, *each.values()]) for a, each in zip(attacks, apart(facts, attacks), strict=True)]
    folders = [cell.records[0].folder.name for cell in cells]
    return [f"{name} {folders[i]}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _order(group: Sequence[Record]) -> str:
    s = group[0].summary()
    return json.dumps(
        [s[key] for key in ("dataset_name", "norm", "eps", "purifier_name", "captioner_name", "attack_name")]
    )


def _empty(rows: Rows, column: str) -> bool:
    return all(row.get(column) is None for row in rows)
