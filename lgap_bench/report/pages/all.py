"""All records as one table: a row per cell, seeds merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgap_bench import CONF
from lgap_bench.record import Record, records
from lgap_bench.report.page import Empty, Page, Table
from lgap_bench.report.rows import Merge, apart, flattened, grouped, merge, told

COLUMNS = (
    "row", "purifier", "attack", "view", "eps", "n", "natural", "robust", "robust_low", "robust_high", "any_of_k",
    "verdict", "caption_label_clean", "caption_label_attacked", "seconds",
)  # fmt: skip
MORE = (
    "dataset", "classifier", "captioner", "train", "finetune", "norm", "seeds", "score_draws", "natural_low", "natural_high",
    "natural_any_of_k", "natural_majority_of_k", "majority_of_k", "undefended_natural", "undefended_robust",
    "as_published", "failed", "status", "reasons", "records",
)  # fmt: skip
ROBUST = ("robust", "robust_low", "robust_high", "interval", "any_of_k", "majority_of_k")
SAME = (
    "row",
    "attack",
    "view",
    "eps",
    "n",
    "dataset",
    "classifier",
    "train",
    "finetune",
)  # rows are told apart by these


def page(found: Sequence[Record], merge: Merge = merge) -> Page:
    """One row per cell; where several rows would read the same a column says what sets them apart."""
    groups = grouped(found)
    rows = [merge(group) for group in groups]
    name_differences(rows, [group[0].identity() for group in groups])
    rows.sort(key=_order)
    columns = [*COLUMNS[:6], "seeds", *COLUMNS[6:]] + (["differs"] if any(row["differs"] for row in rows) else [])
    held = [failed_said(row) for row in rows]
    return Page("records", "", tables=[Table(columns, held)], data=[Table((*COLUMNS, *MORE, "differs"), held)])


def finished(outputs: Path, dataset: str | None = None) -> list[Record]:
    """All finished records, or those on one data set. Raises ValueError where there is none."""
    if not (found := records(outputs)):
        raise ValueError(
            f"outputs={outputs}: no finished record in {outputs / 'records'}: run a cell first, `lgap-bench run`"
        )
    met = [record.summary()["dataset_name"] for record in found] if dataset else []
    if dataset and dataset not in met:
        check_dataset(dataset)
        raise ValueError(
            f"dataset={dataset}: no record on it in {outputs / 'records'}: there are {', '.join(sorted(set(met)))}"
        )
    return [record for record, name in zip(found, met, strict=True) if name == dataset] if dataset else found


def check_dataset(name: str) -> None:
    """Raises ValueError naming the data sets there are."""
    known = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
    if name not in known:
        raise ValueError(f"dataset={name} is not known: use one of {', '.join(known)}")


def name_differences(rows: Sequence[dict[str, Any]], identities: Sequence[Mapping[str, Any]]) -> None:
    """Where several rows would read the same, say in `differs` what sets each apart: `purifier.steps=10`."""
    settings = [flattened({**identity, "seed": None}) for identity in identities]
    for row, differences in zip(rows, apart(settings, [tuple(row[key] for key in SAME) for row in rows]), strict=True):
        row["differs"] = told(differences) or None


def failed_said(row: Mapping[str, Any]) -> dict[str, Any]:
    """A measured row; where the attack failed on every image its robust accuracies say so."""
    return dict(row) if "robust" in row else {**row, **dict.fromkeys(ROBUST, Empty.FAILED)}


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    keys = ("dataset", "norm", "eps", "purifier", "captioner")
    return (*(row[key] or "" for key in keys), -(row.get("robust") or 0.0))
