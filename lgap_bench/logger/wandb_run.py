"""What a W&B run of a cell holds, made from its record, whole or not yet, and from what its process told. Without wandb."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.logger import wandb_clean as clean
from lgap_bench.logger.wandb_settings import LONGEST_TAG, Settings
from lgap_bench.metric.accuracy import accuracy
from lgap_bench.record import CONFIG, Record
from lgap_bench.task.single_label import SINGLE_LABEL

KILLED = "the process ended without a word, killed perhaps: the same call goes on where it stopped"
FILES = ("identity.json", "samples.parquet", "summary.json", "lower.json", "run.json", "pictures.npz", "grid.png")
CAPTIONS = ("id", "label", "clean_caption", "attacked_caption", "clean_caption_label", "attacked_caption_label")
READ = (  # of a chunk; `_right` where several labels are right for an image
    *("label", "clean_prediction", "attacked_prediction", "clean_right", "attacked_right", "failed"),
    *("seconds", "peak_memory_mib"),
)
UNSAID = (
    "classes",
    "reasons",
    "verdict",
)  # of summary.json: a thousand names; what `Record.verdict` says with lower.json


@dataclass(frozen=True)
class Table:
    """Rows of plain values."""

    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True)
class Run:
    """All that one run shows.

    Attributes:
        id: the record's.
        rows: one per finished chunk, with `chunk` as their step.
        summary: flat, `robust/mean`; `state` is running, finished or failed.
        tables, pictures: by name.
        artifact: the record's files that are sent.
        failed: whether the run ends with exit code 1.
    """

    id: str
    name: str
    group: str | None
    job_type: str | None
    tags: tuple[str, ...]
    config: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)
    artifact: list[Path] = field(default_factory=list)
    failed: bool = False


def of_record(record: Record, settings: Settings, told: Mapping[str, Any]) -> Run:
    """The run of a cell. `told` is what its process said: `config`, `state`, `error`, ...; of a whole record it may be empty.

    A whole record is finished, whatever was told. Raises ValueError if the record is damaged.
    """
    held = told.get("config") or record.config()
    state = "finished" if record.complete else told.get("state", "running")
    state = "running" if state == "waiting" else state  # for other processes
    run = _named(record.folder.name, held, settings, told)
    progress = list(_rows(record, held, state))
    said = {"state": state}
    if state == "finished":
        return Run(
            **run,
            rows=progress,
            summary={**said, **_summary(record, settings)},
            tables=_tables(record, settings),
            pictures={"grid": record.folder / "grid.png"} if (record.folder / "grid.png").exists() else {},
            artifact=_files(record, settings),
        )
    for key in ("phase", "error"):
        if told.get(key) and (key == "error") == (state == "failed"):
            said[key] = clean.text(str(told[key]), settings.paths)
    return Run(**run, rows=progress, summary=said, failed=state == "failed")


def of_table(told: Mapping[str, Any], settings: Settings) -> Run:
    """The run of a sweep's table."""
    table = Table(list(told["columns"]), [list(row) for row in told["rows"]])
    return Run(
        id=told["id"],
        name=str(told["name"]),
        group=settings.group,
        job_type="table",
        tags=settings.tags,
        config={"sweep": str(told["name"])},
        summary={"state": "finished", "rows": len(table.rows)},
        tables={"table": table},
    )


def _named(name: str, held: Mapping[str, Any], settings: Settings, told: Mapping[str, Any]) -> dict[str, Any]:
    """What the run is called and filed under, and its config."""
    config = clean.config(held, settings.paths)
    config |= {key: told[key] for key in ("slurm", "host") if told.get(key)}
    purifier, attack = held["purifier_name"], held["attack_name"]
    folder, _, _ = (held.get("experiment_name") or "").rpartition("/")
    budget = f"{held['threat']['norm']} {held['threat']['eps']}"
    own = (held["dataset_name"], f"view {held['view_name']}", budget)
    return {
        "id": name,
        "name": f"{purifier} under {attack}, seed {held['seed']}",
        "group": settings.group or folder or None,
        "job_type": settings.job_type or purifier,
        "tags": tuple(dict.fromkeys(tag[:LONGEST_TAG] for tag in (*own, *settings.tags))),
        "config": config,
    }


def _rows(record: Record, held: Mapping[str, Any], state: str) -> Iterator[dict[str, Any]]:
    """One row per chunk: how many images are done, and the accuracies over them as the summary counts them."""
    found = list(_whole(record, held["chunk"]) if state == "finished" else _saved(record))
    right = {name: np.concatenate([each[name] for each in found]) for name in ("clean", "attacked")} if found else {}
    kept = np.concatenate([~each["failed"] for each in found]) if found else np.empty(0, bool)
    done = 0
    for each in found:
        images = len(each["failed"])
        done += images
        row: dict[str, Any] = {"chunk": int(each["index"]), "images": done}
        chosen = kept[:done]
        row |= _accuracy("natural", right["clean"][:done])
        row |= _accuracy("robust", right["attacked"][:done][chosen])
        seconds, memory = each.get("seconds"), each.get("memory")
        row |= {"seconds": seconds, "samples_per_second": images / seconds} if seconds else {}
        row |= {"peak_memory_mib": memory} if memory else {}
        yield row


def _accuracy(title: str, right: NDArray[np.bool_]) -> dict[str, float]:
    """Percent and its 95 % interval; nothing where no sample counts."""
    if not len(right):
        return {}
    found = accuracy(right[None])
    return {title: found.mean, f"{title}_low": found.low, f"{title}_high": found.high}


def _saved(record: Record) -> Iterator[dict[str, Any]]:
    """The chunks of a cell that runs, in their order, those columns alone that a row needs."""
    for file in sorted((record.folder / "chunks").glob("*.npz")):
        try:
            with np.load(file, allow_pickle=False) as arrays:  # reads what is asked for, not the images
                held = {name: arrays[name] for name in READ if name in arrays}
            right = {name: SINGLE_LABEL.correct(held, name).T for name in ("clean", "attacked")}
        except (
            Exception
        ):  # damaged, or merged and removed in this moment: who measures says which, a picture of it need not
            continue
        yield {
            "index": int(file.stem),
            **right,
            "failed": held["failed"],
            "seconds": float(held["seconds"]) if "seconds" in held else None,
            "memory": float(held["peak_memory_mib"]) if "peak_memory_mib" in held else None,
        }


def _whole(record: Record, size: int) -> Iterator[dict[str, Any]]:
    """The chunks that a whole record was made of."""
    samples, run = record.samples(), record.run()
    right = {name: SINGLE_LABEL.correct(samples, name) for name in ("clean", "attacked")}
    failed = np.asarray(samples["failed"], bool)
    for index, start in enumerate(range(0, len(failed), size)):
        rows = slice(start, start + size)
        yield {
            "index": index,
            "clean": right["clean"][rows],
            "attacked": right["attacked"][rows],
            "failed": failed[rows],
            "seconds": _nth(run.get("chunk_seconds"), index),
            "memory": _nth(run.get("chunk_peak_memory_mib") or run.get("peak_memory_mib"), index),
        }


def _nth(values: Any, index: int) -> float | None:
    """A chunk's own value of a list; a single value is every chunk's; None where there is none."""
    if isinstance(values, Sequence) and not isinstance(values, str):
        values = values[index] if index < len(values) else None
    return float(values) if isinstance(values, int | float) else None


def _summary(record: Record, settings: Settings) -> dict[str, Any]:
    """summary.json, lower.json and run.json, flat, with the verdict as tables show it."""
    value, reasons = record.verdict()
    summary = {key: held for key, held in record.summary().items() if key not in UNSAID}
    judged = {"verdict": value, "reasons": "; ".join(reasons)}
    nested = {**summary, **judged, "lower": record.lower() or {}, "run": record.run()}
    flat = dict(_flat(clean.plain(nested, settings.paths)))
    return {key: held for key, held in flat.items() if not isinstance(held, float) or isfinite(held)}


def _flat(node: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}/")
        elif isinstance(value, list):
            yield f"{above}{key}", ", ".join(map(str, value))
        elif value is not None:
            yield f"{above}{key}", value


def _tables(record: Record, settings: Settings) -> dict[str, Table]:
    """One row per sample, and the captions alone where the record has some; the first `settings.rows` samples."""
    samples, classes = record.samples(), record.classes()
    few = {name: [_cell(value) for value in column[: settings.rows]] for name, column in samples.items()}
    named = {"id": few.pop("id"), "label": few.pop("label")}
    named["label_name"] = [classes[label] for label in named["label"]]
    found = {"samples": _table({**named, **few})} if settings.rows else {}
    if "clean_caption" in few and settings.rows:
        found["captions"] = _table({name: {**named, **few}[name] for name in CAPTIONS if name in {**named, **few}})
    return found


def _table(columns: Mapping[str, list[Any]]) -> Table:
    return Table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)])


def _cell(value: Any) -> Any:
    """A sample's value: the draws of one image become a text, `3 3 7`; what is not finite is left out."""
    if isinstance(value, list):
        return " ".join(f"{each:.6g}" if isinstance(each, float) else str(each) for each in value)
    return None if isinstance(value, float) and not isfinite(value) else value


def _files(record: Record, settings: Settings) -> list[Path]:
    """The record's files that are sent. Config and requests hold paths; all attacked images may be gigabytes."""
    if not settings.artifact:
        return []
    found = [record.folder / name for name in FILES if (record.folder / name).exists()]
    if settings.paths:
        found += [record.folder / CONFIG, *sorted((record.folder / "asked").glob("*.json"))]
    return found
