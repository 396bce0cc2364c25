"""The ablation of language: robust accuracy by caption source, strength and attack, as a table and a figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgap_bench.record import Record, records
from lgap_bench.report import paper
from lgap_bench.report.table import as_markdown, as_text, grouped, merge, write_csv

COLORS = ("#1b7837", "#2166ac", "#b2182b", "#b8860b", "#777777", "#762a83")


def report(name: str, outputs: Path, dataset: str | None, markdown: bool) -> None:
    """Print the table, write it and the figure below outputs/tables/."""
    table = paper.load(name)
    rows = sweep(table["sweep"]["experiments"], outputs, dataset)
    if not rows:
        raise ValueError(
            f"table={name}: no record of its experiments in {outputs / 'records'}: run scripts/language.sh"
        )
    measured = [f"robust_{attack}{end}" for attack in attacks_of(rows) for end in ("", "_low", "_high")]
    columns = ["captions", "strength", "natural", *measured, "eps", "dataset", "n", "seeds"]
    print(f"{table['title']}\n\n{(as_markdown if markdown else as_text)(rows, columns)}\n")
    stem = outputs / "tables" / name.replace("/", "-")
    write_csv(rows, stem.with_suffix(".csv"), columns)
    stem.with_suffix(".md").write_text(f"# {table['title']}\n\n{as_markdown(rows, columns)}\n")
    print(stem.with_suffix(".csv"), stem.with_suffix(".md"), figure(rows, stem.with_suffix(".png")))


def sweep(experiments: Sequence[str], outputs: Path, dataset: str | None) -> list[dict[str, Any]]:
    """One row per caption source and strength; per experiment the robust accuracy, its interval as text beside it."""
    cells: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = defaultdict(dict)
    for experiment in experiments:
        name = experiment.rsplit("/", 1)[1]
        chosen = [record for record in records(outputs) if requested_by(record, experiment, dataset)]
        for group in grouped(chosen):
            line, identity = merge(group), group[0].identity()
            captions = "none" if line["captioner"] is None else line["captioner"]
            strength = identity["purifier"].get("strength")
            key = (captions, strength, line["n"], line["dataset"], line["eps"])
            if name in cells[key]:
                raise ValueError(
                    f"{experiment}: records {cells[key][name]['records']} and {line['records']} are both captions from "
                    f"{captions} at strength {strength}: delete the one that is not meant"
                )
            cells[key][name] = line
    rows = []
    for (captions, strength, n, which, eps), found in sorted(cells.items(), key=lambda item: str(item[0])):
        any_line = next(iter(found.values()))
        row = {"captions": captions, "strength": strength, "n": n, "dataset": which, "eps": eps}
        row |= {"seeds": any_line["seeds"], "natural": any_line["natural"]}
        for name, line in found.items():
            row |= {f"robust_{name}{end}": line.get(f"robust{end}") for end in ("", "_low", "_high")}
        rows.append(row)
    return rows


def attacks_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The attacks of which any row has a number, in the order of the table's experiments."""
    names = dict.fromkeys(key for row in rows for key in row if key.startswith("robust_"))
    return [name.removeprefix("robust_") for name in names if not name.endswith(("_low", "_high"))]


def requested_by(record: Record, experiment: str, dataset: str | None) -> bool:
    """Whether a record was made for an experiment, on a data set if one is given."""
    asked = any(asker["experiment"] == experiment and not _another(asker["overrides"]) for asker in record.requests())
    return asked and dataset in (None, record.summary()["dataset_name"])


def _another(overrides: Sequence[str]) -> bool:
    """Whether the experiment was asked for with another attack than its own."""
    return any(text.lstrip("+").startswith(("attack=", "attack.", "view=")) for text in overrides)


def figure(rows: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """One panel per attack: robust accuracy over strength, a line per caption source, bars the 95 % interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    attacks = attacks_of(rows)
    drawn = Figure(figsize=(3.4 * len(attacks), 3.2), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots(1, len(attacks), sharey=True, squeeze=False)[0]
    sources = list(dict.fromkeys(row["captions"] for row in rows))
    for axis, attack in zip(axes, attacks, strict=True):
        for place, (source, color) in enumerate(zip(sources, COLORS, strict=False)):
            own = [row for row in rows if row["captions"] == source and row.get(f"robust_{attack}") is not None]
            middle = [row[f"robust_{attack}"] for row in own]
            spread = [
                [m - row[f"robust_{attack}_low"] for m, row in zip(middle, own, strict=True)],
                [row[f"robust_{attack}_high"] - m for m, row in zip(middle, own, strict=True)],
            ]
            beside = [
                row["strength"] + 0.004 * (place - len(sources) / 2) for row in own
            ]  # bars do not hide each other
            axis.errorbar(beside, middle, spread, color=color, marker="o", markersize=4, capsize=2, label=source)
        axis.set(title=attack, xlabel="strength", ylim=(0, 100))
    axes[0].set_ylabel("robust accuracy, %")
    axes[-1].legend(fontsize=7, title="captions from", title_fontsize=7)
    drawn.savefig(out, dpi=110)
    return out
