"""An item of a paper: its published values beside what was measured, row by row, or the script that makes it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lgap_bench import CONF
from lgap_bench.cell.config import STAGES
from lgap_bench.record import Record, records
from lgap_bench.report import several
from lgap_bench.report.bars import bars
from lgap_bench.report.missing import Begun, begun, command
from lgap_bench.report.page import Empty, Figure, Page, Quantity, Table
from lgap_bench.report.pages.all import check_dataset, failed_said
from lgap_bench.report.rows import VERDICTS, Merge, grouped, interval, marked, merge, settings_line
from lgap_bench.report.select import Requested, on_dataset, requested
from lgap_bench.report.worst import Cells, lowest_of, worst_per_image

BUDGET = ("norm", "eps")  # in the line above a table where all its rows share them
COLUMNS = (
    "row", "paper_natural", "paper_robust", "natural", "robust", "interval", "verdict", "any_of_k", "natural_any_of_k",
    "majority_of_k", "natural_majority_of_k",
    "paper_natural_precision", "paper_precision", *several.COLUMNS[:4], "paper_success", *several.COLUMNS[4:], "mean_l2",
    "attack", "view", *BUDGET, "n", "seeds", "differs", "to_run",
)  # fmt: skip
ALWAYS = ("row", "paper_robust", "robust")  # shown even where empty; where nothing robust is published the first alone
EXPORTED = (
    *COLUMNS[:5], "robust_low", "robust_high", "natural_low", "natural_high", *COLUMNS[6:-1], "state", "to_run", "dataset", "purifier", "classifier", "captioner", "train", "finetune", "architecture", "paper_architecture",
    "reasons", "score_draws", "caption_label_clean", "caption_label_attacked", "as_published", "failed", "status",
    "source", "records", "seconds", "threshold", *(f"{key}_{end}" for key in ("map", "precision", "success") for end in ("low", "high")),
    "precision_micro", "precision_sample", "undefended_map", "undefended_precision", "undefended_success",
    "undefended_natural_map", "undefended_natural_precision",
)  # fmt: skip
NOTHING = "Nothing measured"
MEASURED = ("natural", "robust")  # say in every row without a number why there is none
PUBLISHED = (*MEASURED, "natural_precision", "precision", "success")  # of which a row may give the paper's value
Rows = list[dict[str, Any]]
SEVERAL: dict[str, Callable[[Cells, Merge], Rows]] = {  # rows made from several experiments
    "worst_per_image": lambda cells, _: worst_per_image(cells),
    "lowest_of": lowest_of,
}


def load(name: str) -> dict[str, Any]:
    """conf/table/<name>.yaml. Raises ValueError naming the tables there are."""
    file = CONF / "table" / f"{name}.yaml"
    if not file.is_file():
        raise ValueError(f"table={name} is not known: use one of {', '.join(known())}")
    return yaml.safe_load(file.read_text())


def known() -> list[str]:
    """Every item that `table=` knows, `coup/1` and so on."""
    folder = CONF / "table"
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def pages(name: str, table: Mapping[str, Any], outputs: Path, dataset: str | None, merge: Merge = merge) -> list[Page]:
    """The table once per data set that its experiments were measured on (or on the one asked for)."""
    found = []
    for which, rows in tables(name, outputs, dataset, merge).items():
        measured = any(row.get("records") for row in rows)
        notes = [f"Published values: {table['source']}"] if any(row.get("source") for row in rows) else []
        notes += table.get("notes", ())
        if not measured:
            notes.append(f"Published values alone: no record of its experiments in {outputs / 'records'}")
        found.append(
            Page(
                f"{name.replace('/', '-')}-{which.replace(' ', '-')}",
                table["title"],
                settings_line(rows) or NOTHING + (f" on {which}" if which != NOTHING else ""),
                [
                    Table(_columns(rows, table.get("also", ())), [_shown(row) for row in rows]),
                    *_differences(table, rows),
                ],
                [Table(EXPORTED, rows)],
                figures=[Figure(partial(bars, rows, table["bars"]))] if measured and "bars" in table else [],
                notes=notes,
                measured=measured,
            )
        )
    return found


def _columns(rows: Rows, also: Sequence[str] = ()) -> list[str]:
    """The columns that say anything, those that a table asks for `also` among them; a budget that all measured rows share stands above the table."""
    always = ALWAYS if any(row.get("paper_robust") for row in rows) else ALWAYS[:1]
    shared = [key for key in BUDGET if len({row.get(key) for row in rows if row.get("records")}) < 2]
    place = COLUMNS.index("attack")
    known = (*COLUMNS[:place], *also, *COLUMNS[place:])
    told = [column for column in known if column in always or any(row.get(column) is not None for row in rows)]
    return [column for column in told if column not in shared]


def _differences(table: Mapping[str, Any], rows: Rows) -> list[Table]:
    """What the paper says as a difference of two of its rows, in points and relative, where both were measured alike."""
    found = []
    for pair in table.get("pairs", ()):
        of, names = pair["of"], (pair["this"], pair["over"])
        sides = [[row for row in rows if row.get("experiment") == name and of in row] for name in names]
        for first, second in zip(*sides, strict=False):
            points, other = float(first[of]) - float(second[of]), float(second[of])
            relative = f"{100 * points / other:+.1f} %" if other else None
            title = f"{of}: {first['row']} - {second['row']}"
            found.append(
                {"difference": title, "published": pair["published"], "points": f"{points:+.1f}", "relative": relative}
            )
    columns = ("difference", "published", "points", "relative")
    return [Table(columns, found, "differences", "differences")] if found else []


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it is read: blank where a column does not apply to it, since `-` means that there is no such value."""
    words = ("differs", "to_run") if row.get("state") == "measured" else COLUMNS
    paper = "state" in row and {"paper_natural": None, "paper_robust": None}
    return {**dict.fromkeys(words, ""), **(paper or {}), **{key: v for key, v in row.items() if v is not None}}


def by_script(name: str, table: Mapping[str, Any]) -> Page:
    """An item that a script makes, or that needs none: which one it is, beside the values that the paper gives."""
    columns = list(dict.fromkeys(column for row in table["rows"] for column in ["row", *row.get("published", {})]))
    unit = {key: table[key] for key in ("unit", "digits") if key in table}
    rows = [{"row": row["row"], **_published(row.get("published", {}), unit)} for row in table["rows"]]
    held = [Table(columns, rows, f"published: {table['source']}")] if rows else []
    made = f"made by: {table['script']}" if "script" in table else "nothing to measure"
    return Page(name.replace("/", "-"), table["title"], made, held, notes=table.get("notes", ()), measured=False)


def tables(name: str, outputs: Path, dataset: str | None = None, merge: Merge = merge) -> dict[str, Rows]:
    """The rows once per data set; on one without a record they are the published values, and what was begun."""
    table = load(name)
    if dataset is not None:
        check_dataset(dataset)
    found, half = requested(records(outputs), experiments(table)), begun(outputs, experiments(table))
    measured = {record.summary()["dataset_name"] for group in found.values() for record, _ in group}
    chosen = [dataset] if dataset is not None else sorted(measured | {each.dataset for each in half})
    return {
        which: _rows(table, on_dataset(found, which), [each for each in half if each.dataset == which], which, merge)
        for which in chosen
    } or {NOTHING: _rows(table, {}, [], None, merge)}


def experiments(table: Mapping[str, Any]) -> set[str]:
    """Every experiment that a table's rows name."""
    return {e for row in table["rows"] for e in _named(row)}


def _named(row: Mapping[str, Any]) -> list[str]:
    several = [e for key in SEVERAL for e in row.get(key, ())]
    return [row["experiment"]] if "experiment" in row else several


def _rows(table: Mapping[str, Any], found: Requested, half: Sequence[Begun], dataset: str | None, merge: Merge) -> Rows:
    rows: Rows = []
    for row in table["rows"]:
        if "section" in row:
            rows.append({"row": f"[{row['section']}]"})
            continue
        cited = not _named(row)
        paper: dict[str, Any] = {"row": f"{row['row']} (cited)" if cited else row["row"]}
        paper |= {f"paper_{key}": value for key, value in _published({k: row.get(k) for k in PUBLISHED}).items()}
        told = any(key in row for key in PUBLISHED[1:])
        paper |= {"paper_architecture": row.get("architecture"), "source": table["source"] if told else None}
        lines = [{**failed_said(line), "state": "measured"} for line in _lines(row, found, merge)]
        paper["experiment"] = row.get("experiment")
        rows += [{**line, **paper} for line in lines or [_empty(row, found, half, dataset)]]
    return rows


def _empty(row: Mapping[str, Any], found: Requested, half: Sequence[Begun], dataset: str | None) -> dict[str, Any]:
    """A row without a measurement, and what measures it; one that was begun says how far it is."""
    if not _named(row):
        return {**dict.fromkeys(MEASURED, Empty.CITED), "state": Empty.CITED.value}
    missing = [experiment for experiment in _named(row) if not found.get(experiment)]
    own = [each for each in half if each.experiment in missing]
    state = Empty.PARTIAL if own else Empty.NOT_RUN
    line = {**dict.fromkeys(MEASURED, state), "state": state.value}
    if own and len(missing) == 1:
        return {**line, "differs": f"{own[0].done} of {own[0].chunks} chunks", "to_run": own[0].command}
    if "worst_per_image" in row:  # any two of its attacks make it: those that take hours only where there are no others
        missing = [each for each in missing if "/slow/" not in each] or missing
    return {**line, "to_run": command(missing or _named(row), dataset=dataset)}


def _lines(row: Mapping[str, Any], found: Requested, merge: Merge) -> Rows:
    """What was measured of a row: an experiment, the worst of several per image, or the one with the lowest accuracy."""
    for key, choose in SEVERAL.items():
        if key in row:
            return choose({experiment: found.get(experiment, []) for experiment in row[key]}, merge)
    return _measured(found.get(row.get("experiment", ""), []), merge)


def _measured(cells: Sequence[tuple[Record, str]], merge: Merge) -> Rows:
    """One line per group of records that differ in their seed alone, by their identities; then the spread of trainings."""
    texts = {record.folder.name: text for record, text in cells}
    groups = grouped([record for record, _ in cells])
    lines = [_line(merge(group), group, min((texts[each.folder.name] for each in group), key=len)) for group in groups]
    spread = _spread(lines, [group[0].identity() for group in groups])
    return sorted(lines, key=lambda line: line["differs"] or "") + spread


def _line(line: Mapping[str, Any], cells: Sequence[Record], text: str) -> dict[str, Any]:
    view = cells[0].summary()["view"]
    return {**line, "view": view, "differs": text or None, "interval": interval(line)}


def _spread(lines: Sequence[Mapping[str, Any]], identities: Sequence[Mapping[str, Any]]) -> Rows:
    """The spread over trainings: lines whose identities differ in finetune.seed (or train.seed) alone, as one more line."""
    found = []
    for stage in STAGES:
        alike: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for line, identity in zip(lines, identities, strict=True):
            if "robust" in line and stage in identity:
                rest = {**identity, "seed": None, stage: {**identity[stage], "seed": None}}
                alike[json.dumps(rest, sort_keys=True)].append(line)
        found += [_mean(group, stage) for group in alike.values() if len(group) > 1]
    return found


def _mean(group: Sequence[Mapping[str, Any]], stage: str) -> dict[str, Any]:
    values = [line["robust"] for line in group]
    line = {name: group[0][name] for name in ("attack", "view", "n", "seeds", "eps", "norm", "dataset")}
    line |= {"natural": float(np.mean([each["natural"] for each in group])), "robust": float(np.mean(values))}
    line |= {"interval": f"{min(values):.1f}-{max(values):.1f}"}
    verdict = max(
        (each["verdict"] for each in group), key=VERDICTS.index
    )  # a mean is no better than its worst training
    line |= {**marked(line, verdict), "verdict": verdict}
    return {**line, "differs": f"mean and range over {len(group)} trainings ({stage}.seed)"}


def _published(values: Mapping[str, Any], unit: Mapping[str, Any] | None = None) -> dict[str, str | Quantity | None]:
    """Published values as they stand in a table: percent with two digits, text as it is (`> 64`), or with their unit."""
    return {key: _cell(value, unit) for key, value in values.items()}


def _cell(value: Any, unit: Mapping[str, Any] | None) -> str | Quantity | None:
    if value is None or isinstance(value, str):
        return value
    held = value if isinstance(value, Mapping) else {"value": value, **(unit or {})}
    return Quantity(**held) if "unit" in held else f"{value:.2f}"
