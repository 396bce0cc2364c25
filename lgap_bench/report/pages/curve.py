"""Accuracy, or another value, over one swept key (COUP, figures 4a and 4b): a table and a figure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgap_bench.cell.values import fraction
from lgap_bench.report import figure
from lgap_bench.report.missing import command, planned
from lgap_bench.report.page import Empty, Figure, Page, Table, Unmeasured
from lgap_bench.report.rows import Merge, apart, brief, merge, settings_line, told
from lgap_bench.report.select import Row, by_defense

COLUMNS = ("value", "natural", "robust", "robust_low", "robust_high", "any_of_k", "seeds", "line")
MORE = ("natural_low", "natural_high", "majority_of_k", "records")
SEVERAL = (  # of images with several labels
    "experiment", "success", "success_changed", "success_of_correct", "precision", "natural_precision", "map", "natural_map",
)  # fmt: skip
TITLED = ("n", "threat.eps", "threat.norm")  # what a line's title says of itself


def page(name: str, table: Mapping[str, Any], outputs: Path, dataset: str | None, merge: Merge = merge) -> Page:
    """Raises ValueError where there is no record of its experiments."""
    wanted = table["curve"]
    rows = by_defense(wanted["experiments"], outputs, dataset, merge)
    if not rows:
        raise Unmeasured(f"table={name}: no record of its experiments in {outputs / 'records'}: run {wanted['script']}")
    found = points(rows, wanted["key"])
    # As text: tables round numbers to one digit, and 0.05 is no 0.1.
    shown = [
        {**point, "value": brief(point["eps"]) if wanted["key"] == "threat.eps" else str(point["value"])}
        for point in found
    ]
    left = _missing(table, found)
    value = wanted.get("value", "robust")
    several = SEVERAL if value != "robust" else ()
    return Page(
        name.replace("/", "-"),
        f"{table['title']}, over {wanted['key']}",
        settings_line(found),
        [Table((COLUMNS[0], *several, *COLUMNS[1:], *(["to_run"] if left else [])), [*shown, *left])],
        data=[Table((*COLUMNS, *several, *MORE), found)],
        figures=[Figure(lambda: draw(found, wanted["label"], wanted.get("paper_value"), value))],
        notes=table.get("notes", ()),
    )


def points(rows: Sequence[Row], key: str) -> list[dict[str, Any]]:
    """One point per value of `key` and experiment; `line` names what the points of one line share where lines differ.

    Raises ValueError if a record has no such key.
    """
    lines: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if key not in row.identity:
            raise ValueError(
                f"{key} is no key of purifier={row.facts['purifier']}: a curve over it needs records with it"
            )
        lines[json.dumps({k: v for k, v in row.identity.items() if k != key}, sort_keys=True)].append(row)
    rest = [json.loads(text) for text in lines]
    differences = apart(rest, [None] * len(rest))
    found = []
    for more, held in zip(differences, lines.values(), strict=True):
        facts = held[0].facts
        budget = "" if key == "threat.eps" else f" {facts['eps']}"
        title = f"{facts['purifier']}, {facts['dataset']}, {facts['norm']}{budget}, n = {facts['n']}"
        text = f"{title} {told({k: v for k, v in more.items() if k not in TITLED})}".strip()
        for row in sorted(held, key=lambda row: row.identity[key]):
            for attack, line in row.lines.items():
                found.append({**line, "value": row.identity[key], "line": text, "experiment": attack})
    return found


def _missing(table: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each value that the item's grids plan and no record has."""
    key, dataset = table["curve"]["key"], found[0]["dataset"]
    met = {(point["experiment"], fraction(point["value"], key)) for point in found}
    rows = []
    for each in planned(table, dataset):
        value = each.get(key)
        if value is not None and (each["experiment"].rsplit("/", 1)[1], fraction(value, key)) not in met:
            words = [f"{word}={held}" for word, held in each.items() if word != "experiment"]
            numbers = dict.fromkeys(("natural", "robust", table["curve"].get("value", "robust")), Empty.NOT_RUN)
            rows.append({"value": value, **numbers, "to_run": command([each["experiment"]], *words, dataset=dataset)})
    blank = dict.fromkeys((*COLUMNS, *SEVERAL), "")
    return [{**blank, **row} for row in rows]


def draw(found: Sequence[Mapping[str, Any]], label: str, paper_value: float | None, value: str = "robust") -> Any:
    """Robust accuracy with its 95 % interval, natural accuracy dashed; a colour per line, the paper's setting marked.

    `value`: what is drawn instead; dashed is what it is on clean images, where there is such a number.
    """
    drawn, (axis,) = figure.panels(1, height=4.0)
    names = list(dict.fromkeys((point["line"], point["experiment"]) for point in found))
    for place, name in enumerate(names):
        own = [point for point in found if (point["line"], point["experiment"]) == name and value in point]
        color, x = figure.COLORS[place % len(figure.COLORS)], [point["value"] for point in own]
        named = name[0] if value == "robust" else f"{name[1]}: {name[0]}"
        figure.accuracies(axis, x, own, named, value, color=color)
        clean = "natural" if value == "robust" else f"natural_{value}"
        if own and clean in own[0]:
            axis.plot(x, [point[clean] for point in own], color=color, ls="--", marker=".")
    if paper_value is not None:
        axis.axvline(paper_value, color=figure.FAINT, lw=1, ls=":", label=f"the paper's setting, {paper_value:g}")
    ylabel = "accuracy, % (dashed: natural)" if value == "robust" else f"{value}, %"
    axis.set(xlabel=label, ylabel=ylabel, ylim=(0, 101))
    figure.legend(drawn, columns=1)
    return drawn
