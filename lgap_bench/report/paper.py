"""A paper's table: its published values beside what was measured, row by row, from records alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lgap_bench import CONF
from lgap_bench.cell.config import STAGES
from lgap_bench.cell.identity import NUMERICS_VERSION
from lgap_bench.record import Record, records
from lgap_bench.report.table import grouped, merge
from lgap_bench.report.worst import worse_of, worst_of

COLUMNS = (
    "row", "paper_natural", "paper_robust", "natural", "robust", "interval", "any_of_k", "natural_any_of_k", "attack",
    "view", "n", "seeds", "differs",
)  # fmt: skip
EXPORTED = (
    *COLUMNS[:5], "robust_low", "robust_high", "natural_low", "natural_high", *COLUMNS[6:], "eps", "norm", "dataset",
    "purifier", "classifier", "captioner", "train", "finetune", "architecture", "score_draws", "majority_of_k",
    "caption_label_clean", "caption_label_attacked", "as_published", "failed", "status", "source", "records", "seconds",
)  # fmt: skip
# Overrides that change no number, or that a column of its own shows.
SHOWN = (
    "experiment",
    "dataset",
    "outputs",
    "threads",
    "seed",
    "device",
    "max_rows",
    "keep_images",
    "data",
    "checkpoints",
)


def load(name: str) -> dict[str, Any]:
    """conf/table/<name>.yaml. Raises ValueError naming the tables there are."""
    file = CONF / "table" / f"{name}.yaml"
    if not file.is_file():
        known = sorted(
            path.relative_to(CONF / "table").with_suffix("").as_posix() for path in (CONF / "table").rglob("*.yaml")
        )
        raise ValueError(f"table={name} is not known: use one of {', '.join(known)}")
    return yaml.safe_load(file.read_text())


def tables(name: str, outputs: Path, dataset: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """The table once per data set that its experiments were measured on (or on the one asked for)."""
    table = load(name)
    asked = _asked(records(outputs), table)
    found = sorted({record.summary()["dataset_name"] for group in asked.values() for record, _ in group})
    known = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
    if dataset is not None and dataset not in known:
        raise ValueError(f"dataset={dataset} is not known: use one of {', '.join(known)}")
    if dataset is not None and dataset not in found:
        raise ValueError(
            f"table={name} dataset={dataset}: no record of it in {outputs / 'records'}: run its experiments, e.g. "
            f"lgap-bench run -m '+experiment/{_folder(table)}=glob(*)' dataset={dataset}"
        )
    chosen = [dataset] if dataset is not None else found
    return {which: _rows(table, _on(asked, which)) for which in chosen} or {"nothing measured": _rows(table, {})}


Asked = dict[str, list[tuple[Record, str]]]  # experiment -> records with the overrides that single them out


def _asked(found: Sequence[Record], table: Mapping[str, Any]) -> Asked:
    wanted = {row.get("experiment") for row in table["rows"]} | {
        e for row in table["rows"] for e in (*row.get("worst_of", []), *row.get("worse_of", []))
    }
    asked: Asked = defaultdict(list)
    for record in found:
        texts: dict[str, str] = {}
        for asker in record.requests():  # asked for more than once: the call with the fewest overrides names the line
            text = " ".join(filter(None, [differs(asker["overrides"]), _outdated(record)]))
            known = texts.get(asker["experiment"])
            texts[asker["experiment"]] = text if known is None else min(known, text, key=len)
        for experiment, text in texts.items():
            if experiment in wanted:
                asked[experiment].append((record, text))
    return asked


def _outdated(record: Record) -> str:
    """Records of earlier numerics are shown, and say so."""
    version = record.identity()["numerics_version"]
    return "" if version == NUMERICS_VERSION else f"numerics_version={version}"


def differs(overrides: Sequence[str]) -> str:
    """The overrides that make a cell another one than its experiment's default, e.g. `n=200 attack.steps=10`."""
    kept = [text for text in overrides if text.split("=")[0].lstrip("+") not in SHOWN and "experiment/" not in text]
    return " ".join(sorted(kept))


def _on(asked: Asked, dataset: str) -> Asked:
    return {
        experiment: [(record, text) for record, text in group if record.summary()["dataset_name"] == dataset]
        for experiment, group in asked.items()
    }


def _rows(table: Mapping[str, Any], asked: Asked) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row in table["rows"]:
        if "section" in row:
            rows.append({"row": f"[{row['section']}]"})
            continue
        paper = {"paper_natural": _percent(row.get("natural")), "paper_robust": _percent(row.get("robust"))}
        paper |= {"architecture": row.get("architecture"), "source": table["source"] if "robust" in row else None}
        lines = _lines(row, asked)
        cited = not row.keys() & {"experiment", "worst_of", "worse_of"}
        title = {"row": f"{row['row']} (cited)" if cited else row["row"]}
        rows += [{**line, **paper, **title} for line in lines] or [{**paper, **title}]
    return rows


def _lines(row: Mapping[str, Any], asked: Asked) -> list[dict[str, Any]]:
    """What was measured of a row: an experiment, the worst of several per sample, or the one with the lower accuracy."""
    for key, choose in (("worst_of", worst_of), ("worse_of", worse_of)):
        if key in row:
            return choose({experiment: asked.get(experiment, []) for experiment in row[key]})
    return _measured(asked.get(row.get("experiment", ""), []))


def _measured(cells: Sequence[tuple[Record, str]]) -> list[dict[str, Any]]:
    """One line per group of records that differ in their seed alone, by their identities; then the spread of trainings."""
    texts = {record.folder.name: text for record, text in cells}
    groups = grouped([record for record, _ in cells])
    lines = [_line(group, min((texts[record.folder.name] for record in group), key=len)) for group in groups]
    spread = _spread(lines, [group[0].identity() for group in groups])
    return sorted(lines, key=lambda line: line["differs"] or "") + spread


def _line(cells: Sequence[Record], text: str) -> dict[str, Any]:
    line = merge(cells)
    view = cells[0].summary()["view"]
    return {**line, "view": view, "differs": text or None, "interval": _interval(line)}


def _interval(line: Mapping[str, Any]) -> str | None:
    return f"{line['robust_low']:.1f}-{line['robust_high']:.1f}" if "robust" in line else None


def _spread(lines: Sequence[Mapping[str, Any]], identities: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The spread over trainings: lines whose identities differ in finetune.seed (or train.seed) alone, as one more line."""
    found = []
    for stage in STAGES:
        alike: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for line, identity in zip(lines, identities, strict=True):
            if "robust" in line and stage in identity:
                rest = {**identity, "seed": None, stage: {**identity[stage], "seed": None}}
                alike[json.dumps(rest, sort_keys=True)].append(line)
        for group in alike.values():
            if len(group) > 1:
                values = [line["robust"] for line in group]
                line = {name: group[0][name] for name in ("attack", "view", "n", "seeds", "eps", "norm", "dataset")}
                line |= {
                    "natural": float(np.mean([each["natural"] for each in group])),
                    "robust": float(np.mean(values)),
                }
                line |= {"interval": f"{min(values):.1f}-{max(values):.1f}"}
                found.append({**line, "differs": f"mean and range over {len(group)} trainings ({stage}.seed)"})
    return found


def _percent(value: Any) -> str | None:
    """A published value with two digits."""
    return None if value is None else f"{value:.2f}"


def _folder(table: Mapping[str, Any]) -> str:
    first = next(row["experiment"] for row in table["rows"] if "experiment" in row)
    return first.rsplit("/", 1)[0]
