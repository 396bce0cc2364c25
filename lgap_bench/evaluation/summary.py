"""Chunks -> a cell's numbers, in percent, over the samples whose attack did not fail; and the record made whole by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.attack.problem import Parts
from lgap_bench.cell.config import Cell
from lgap_bench.evaluation.facts import cell_facts, run_facts
from lgap_bench.evaluation.verdict import Facts, verdict
from lgap_bench.metric.accuracy import accuracy
from lgap_bench.record import Chunk, Record
from lgap_bench.runtime.device import Device
from lgap_bench.runtime.forecasts import kept
from lgap_bench.task.single_label import SingleLabel

TITLES = {"clean": "natural", "attacked": "robust"}


def finish(record: Record, chunks: list[Chunk], parts: Parts, cell: Cell, device: Device, began: float) -> None:
    """Save a cell whose chunks are all there: samples, numbers, facts. `began` is the call's `time.monotonic()`."""
    facts = cell_facts(cell, record.folder.name, device, parts.dataset.classes)
    summary = {**facts, **summarise(chunks, parts.dataset.task, parts.measures)}
    summary |= verdict(Facts(cell, parts.defense.randomized, chunks, summary))
    told = kept(cell.outputs, record.folder.name)
    record.finish(chunks, summary, run_facts(chunks, began, device) | ({"forecast": told} if told else {}))


def summarise(chunks: Sequence[Chunk], task: SingleLabel, measures: Sequence[Any] = ()) -> dict[str, Any]:
    """Natural and robust accuracy with intervals, the undefended classifier's, and what the measures add.

    Samples whose attack failed are left out of `robust` and counted: a crash is a recorded state, never a robust sample.
    """
    kept = np.concatenate([~chunk["failed"] for chunk in chunks])
    summary: dict[str, Any] = {"failed": int((~kept).sum()), "status": "complete" if kept.all() else "partial"}
    summary["score_draws"] = int(chunks[0]["clean_prediction"].shape[0])
    for name, title in TITLES.items():
        chosen = kept if name == "attacked" else np.ones_like(kept)
        if chosen.any():
            summary |= _accuracies(chunks, task, chosen, name, title)
    summary |= _attack_columns(chunks, kept)
    for measure in measures:
        summary |= measure.summary(chunks, kept)
    probed = {key: value for key, value in chunks[0].items() if key.startswith("probe_")}
    summary |= {key.removeprefix("probe_"): float(value) for key, value in probed.items()}
    for norm in ("linf", "l2"):
        summary[f"mean_{norm}"] = float(np.concatenate([chunk[norm] for chunk in chunks]).mean())
    return summary


def _accuracies(
    chunks: Sequence[Chunk], task: SingleLabel, chosen: NDArray[np.bool_], name: str, title: str
) -> dict[str, Any]:
    correct = np.concatenate([task.correct(chunk, name) for chunk in chunks], axis=1).T
    undefended = np.concatenate([task.bare_correct(chunk, name) for chunk in chunks])
    return {
        title: vars(accuracy(correct[None, chosen])),
        f"undefended_{title}": 100 * float(undefended[chosen].mean()),
    }


def _attack_columns(chunks: Sequence[Chunk], kept: NDArray[np.bool_]) -> dict[str, float]:
    """Shares of what attacks say of their samples: a library's own count, and whose image was the worst."""
    columns = dict.fromkeys(name for chunk in chunks for name in chunk)
    found = {}
    for column in [name for name in columns if name == "as_published" or name.startswith("found_by_")]:
        flags = np.concatenate([chunk.get(column, np.zeros(len(chunk["id"]), bool)) for chunk in chunks])
        if kept.any():
            found[column] = 100 * float(flags[kept].mean())
    return found
