"""The ablation of language: robust accuracy by caption source, strength and attack, as a table and a figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgap_bench.record import records
from lgap_bench.report import figure
from lgap_bench.report.missing import command
from lgap_bench.report.page import Empty, Figure, Page, Table, Unmeasured
from lgap_bench.report.rows import Merge, grouped, merge, requested_by, settings_line

ENDS = ("", "_low", "_high")


def page(name: str, table: Mapping[str, Any], outputs: Path, dataset: str | None, merge: Merge = merge) -> Page:
    """Raises ValueError where there is no record of its experiments."""
    wanted = table["sweep"]
    rows = sweep(wanted["experiments"], outputs, dataset, merge)
    if not rows:
        raise Unmeasured(f"table={name}: no record of its experiments in {outputs / 'records'}: run {wanted['script']}")
    measured = [f"robust_{attack}{end}" for attack in attacks_of(rows) for end in ENDS]
    columns = ["captions", "strength", "natural", *measured, "eps", "dataset", "n", "seeds"]
    held = [
        {**dict.fromkeys(measured, Empty.NOT_RUN), **row, "to_run": _to_run(row, wanted["experiments"])} for row in rows
    ]
    columns += ["to_run"] if any(row["to_run"] for row in held) else []
    notes = (f"not run: `{wanted['script']}` measures all of it", *table.get("notes", ()))
    return Page(
        name.replace("/", "-"), table["title"], settings_line(rows), [Table(columns, held)],
        figures=[Figure(lambda: draw(rows))], notes=notes,
    )  # fmt: skip


def sweep(experiments: Sequence[str], outputs: Path, dataset: str | None, merge: Merge = merge) -> list[dict[str, Any]]:
    """One row per caption source and strength; per experiment the robust accuracy with its interval.

    Raises ValueError where two records fall on one place.
    """
    cells: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = defaultdict(dict)
    found = records(outputs)
    for experiment in experiments:
        name = experiment.rsplit("/", 1)[1]
        for group in grouped([record for record in found if requested_by(record, experiment, dataset)]):
            line = merge(group)
            captions = "none" if line["captioner"] is None else line["captioner"]
            strength = group[0].identity()["purifier"].get("strength")
            key = (captions, strength, line["n"], line["dataset"], line["norm"], line["eps"])
            if name in cells[key]:
                raise ValueError(
                    f"{experiment}: records {cells[key][name]['records']} and {line['records']} are both captions from "
                    f"{captions} at strength {strength}: delete the one that is not meant"
                )
            cells[key][name] = line
    return [_row(key, lines) for key, lines in sorted(cells.items(), key=lambda item: str(item[0]))]


def _to_run(row: Mapping[str, Any], experiments: Sequence[str]) -> str:
    """What measures the missing cells of a row; empty where there is none."""
    missing = [each for each in experiments if f"robust_{each.rsplit('/', 1)[1]}" not in row]
    words = [f"purifier.strength={row['strength']}", f"n={row['n']}"]
    words = words if row["captions"] == "none" else [f"captioner={row['captions']}", *words]
    return command(missing, *words, dataset=row["dataset"]) if missing else ""


def attacks_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The attacks of which any row has a number, in the order of the table's experiments."""
    names = dict.fromkeys(key for row in rows for key in row if key.startswith("robust_"))
    return [name.removeprefix("robust_") for name in names if not name.endswith(("_low", "_high"))]


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    """One panel per attack: robust accuracy over strength, a line per caption source, bars the 95 % interval."""
    attacks, sources = attacks_of(rows), list(dict.fromkeys(row["captions"] for row in rows))
    drawn, axes = figure.panels(len(attacks), 3.4, 3.6)
    for axis, attack in zip(axes, attacks, strict=True):
        for place, (source, color) in enumerate(zip(sources, figure.COLORS, strict=False)):
            own = [row for row in rows if row["captions"] == source and row.get(f"robust_{attack}") is not None]
            lines = [{f"robust{end}": row[f"robust_{attack}{end}"] for end in ENDS} for row in own]
            # A little to the side, so that bars do not hide each other.
            x = [row["strength"] + 0.004 * (place - len(sources) / 2) for row in own]
            figure.accuracies(axis, x, lines, source, color=color)
        axis.set(title=attack, xlabel="strength", ylim=(0, 100))
    axes[0].set_ylabel("robust accuracy, %")
    figure.legend(drawn, "captions from", columns=6)
    return drawn


def _row(key: tuple[Any, ...], lines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    row = dict(zip(("captions", "strength", "n", "dataset", "norm", "eps"), key, strict=True))
    first = next(iter(lines.values()))
    row |= {"seeds": first["seeds"], "natural": first["natural"]}
    row["records"] = " ".join(line["records"] for line in lines.values())
    for name, line in lines.items():
        if "robust" in line:
            row |= {f"robust_{name}{end}": line[f"robust{end}"] for end in ENDS}
        else:
            row |= {f"robust_{name}": None}
    return row
