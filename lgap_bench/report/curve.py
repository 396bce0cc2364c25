"""Accuracy over one swept key (COUP, figures 4a and 4b): a table and a figure, from records alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgap_bench.report import paper
from lgap_bench.report.swept import Row, swept
from lgap_bench.report.table import as_markdown, as_text, write_csv

COLORS = ("#b2182b", "#2166ac", "#1b7837", "#b8860b", "#762a83", "#777777")
COLUMNS = ("value", "natural", "robust", "robust_low", "robust_high", "any_of_k", "seeds", "line")


def report(name: str, outputs: Path, dataset: str | None, markdown: bool) -> None:
    """Print the points, write them and the figure below outputs/tables/."""
    table = paper.load(name)
    wanted = table["curve"]
    rows = swept(wanted["experiments"], outputs, dataset)
    if not rows:
        raise ValueError(f"table={name}: no record of its experiments in {outputs / 'records'}: run {wanted['script']}")
    found = points(rows, wanted["key"])
    shown = [{**point, "value": str(point["value"])} for point in found]  # tables round to one digit: 0.05 is no 0.1
    print(f"{table['title']}, over {wanted['key']}\n\n{(as_markdown if markdown else as_text)(shown, COLUMNS)}\n")
    stem = outputs / "tables" / name.replace("/", "-")
    write_csv(found, stem.with_suffix(".csv"), (*COLUMNS, "natural_low", "natural_high", "majority_of_k", "records"))
    stem.with_suffix(".md").write_text(f"# {table['title']}\n\n{as_markdown(shown, COLUMNS)}\n")
    print(stem.with_suffix(".csv"), stem.with_suffix(".md"), figure(found, wanted["label"], stem.with_suffix(".png")))


def points(rows: Sequence[Row], key: str) -> list[dict[str, Any]]:
    """One point per value of `key` and experiment; `line` names what the points of one line share where lines differ.

    Raises ValueError if a record has no such key.
    """
    lines: dict[str, list[tuple[Any, Row]]] = defaultdict(list)
    for row in rows:
        if key not in row.identity:
            raise ValueError(
                f"{key} is no key of purifier={row.facts['purifier']}: a curve over it needs records with it"
            )
        lines[json.dumps({k: v for k, v in row.identity.items() if k != key}, sort_keys=True)].append(
            (row.identity[key], row)
        )
    rest = [json.loads(text) for text in lines]
    told = sorted({k for one in rest for k in one if len({json.dumps(other.get(k)) for other in rest}) > 1})
    found = []
    for identity, held in zip(rest, lines.values(), strict=True):
        facts = held[0][1].facts
        title = f"{facts['purifier']}, {facts['dataset']}, {facts['norm']} {facts['eps']}, n = {facts['n']}"
        more = " ".join(
            f"{k}={identity[k]}" for k in told if k in identity and k not in ("n", "threat.eps", "threat.norm")
        )
        for value, row in sorted(held, key=lambda one: one[0]):
            for attack, line in row.lines.items():
                text = " ".join(filter(None, [title, more]))
                found.append({**line, "value": value, "line": text, "experiment": attack})
    return found


def figure(found: Sequence[Mapping[str, Any]], label: str, out: Path) -> Path:
    """Robust accuracy with its 95 % interval, natural accuracy dashed; a colour per line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(5.2, 3.6), layout="constrained")
    FigureCanvasAgg(drawn)
    axis = drawn.subplots()
    for place, name in enumerate(dict.fromkeys((point["line"], point["experiment"]) for point in found)):
        own = [point for point in found if (point["line"], point["experiment"]) == name and "robust" in point]
        color, x = COLORS[place % len(COLORS)], [point["value"] for point in own]
        middle = [point["robust"] for point in own]
        spread = [
            [point["robust"] - point["robust_low"] for point in own],
            [point["robust_high"] - point["robust"] for point in own],
        ]
        axis.errorbar(x, middle, spread, color=color, marker="o", markersize=4, capsize=2, label=name[0])
        axis.plot(x, [point["natural"] for point in own], color=color, ls="--", marker=".")
    axis.set(xlabel=label, ylabel="accuracy, % (dashed: natural)", ylim=(0, 101))
    axis.legend(fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(out, dpi=110)
    return out
