"""Purifiers x attacks: what each keeps under ever better attackers, as tables and a figure, from records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgap_bench.report import paper
from lgap_bench.report.paired import WORST, across
from lgap_bench.report.paired import differences as differences_of_pairs
from lgap_bench.report.swept import Row, differences, swept
from lgap_bench.report.table import as_markdown, as_text, write_csv
from lgap_bench.report.worst import per_image

COLORS = ("#1b7837", "#2166ac", "#b8860b", "#b2182b", "#762a83", "#e08214", "#000000")
COLUMNS = (
    "purifier", "differs", "attack", "view", "natural", "natural_low", "natural_high", "robust", "robust_low", "robust_high",
    "natural_any_of_k", "any_of_k", "natural_majority_of_k", "majority_of_k", "score_draws", "seeds", "n", "norm", "eps",
    "dataset", "classifier", "compared", "failed", "status", "records", "seconds",
)  # fmt: skip
Panel = tuple[str, str, str, int]  # data set, norm, eps, n: rows that may be compared with one another


def report(name: str, outputs: Path, dataset: str | None, markdown: bool) -> None:
    """Print the tables of every budget, write them and the figure below outputs/tables/."""
    table = paper.load(name)
    wanted = table["compare"]
    attacks = [experiment.rsplit("/", 1)[1] for experiment in wanted["experiments"]]
    rows = swept(wanted["experiments"], outputs, dataset)
    for row in rows:
        if (line := worst(row)) is not None:
            row.lines[WORST] = line
    if not rows:
        raise ValueError(
            f"table={name}: no record of its experiments in {outputs / 'records'}: run {wanted['script']} first"
        )
    panels = _panels(rows, wanted["purifiers"])
    stem = outputs / "tables" / name.replace("/", "-")
    text = f"{table['title']}\n"
    page = f"# {table['title']}\n"
    for (which, norm, eps, n), held in panels.items():
        measured = [attack for attack in (*attacks, WORST) if any(attack in row.lines for _, row in held)]
        parts = tables(held, measured)
        if paired := differences_of_pairs(held, wanted.get("pairs", ()), measured):
            parts["difference of the means on the same images, in points (95 % interval)"] = paired
        if crossed := across(held, wanted.get("across", ())):
            parts["the same between two attacks"] = crossed
        for title, cells in parts.items():
            head = f"{which}, {norm} {eps}, {n} images: {title}"
            columns = list(cells[0])
            text += f"\n{head}\n\n{(as_markdown if markdown else as_text)(cells, columns)}\n"
            page += f"\n**{head}**\n\n{as_markdown(cells, columns)}\n"
    print(text)
    write_csv(list(_lines(panels)), stem.with_suffix(".csv"), COLUMNS)
    stem.with_suffix(".md").write_text(page)
    print(
        stem.with_suffix(".csv"), stem.with_suffix(".md"), figure(panels, (*attacks, WORST), stem.with_suffix(".png"))
    )


def worst(row: Row) -> dict[str, Any] | None:
    """The line of the worst attack per image, of the seeds that met the largest set of attacks; None for a set of one.

    `compared` says how many attacks it is the worst of.
    """
    by_seed = list(row.most_attacked.values())
    compared = len(by_seed[0])
    if compared < 2:
        return None
    seconds = sum(line["seconds"] for line in row.lines.values())
    return {**row.facts, **per_image(by_seed, compared), "compared": compared, "seconds": seconds}


def tables(held: Sequence[tuple[str, Row]], attacks: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Per way of counting one table, a row per purifier and a column per attack; clean images are counted alike."""
    draws = held[0][1].best_measured["score_draws"]
    counts = {
        f"mean over {draws} draws and the seeds (95 % interval)": ("natural", "robust"),
        f"any of {draws}: lost when any draw is wrong": ("natural_any_of_k", "any_of_k"),
        f"majority of {draws}": ("natural_majority_of_k", "majority_of_k"),
    }
    found = {}
    for title, (natural, robust) in counts.items():
        found[title] = [
            {"purifier": label, "natural": _shown(row.best_measured, natural)}
            | {attack: _shown(row.lines.get(attack, {}), robust) for attack in attacks}
            | {"seeds": _range([line["seeds"] for line in row.lines.values()])}
            for label, row in held
        ]
    return found


def figure(panels: Mapping[Panel, Sequence[tuple[str, Row]]], attacks: Sequence[str], out: Path) -> Path:
    """One panel per budget: robust accuracy of every purifier, a colour per attack, bars the 95 % interval.

    Hollow markers are any-of-K; the grey line is natural accuracy.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(5.2 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    attacks = [attack for attack in attacks if any(attack in row.lines for held in panels.values() for _, row in held)]
    for axis, ((which, norm, eps, n), held) in zip(axes, panels.items(), strict=True):
        for place, (attack, color) in enumerate(zip(attacks, COLORS, strict=False)):
            own = [(i, row.lines[attack]) for i, (_, row) in enumerate(held) if "robust" in row.lines.get(attack, {})]
            beside = [i + 0.13 * (place - (len(attacks) - 1) / 2) for i, _ in own]
            middle = [line["robust"] for _, line in own]
            spread = [
                [line["robust"] - line["robust_low"] for _, line in own],
                [line["robust_high"] - line["robust"] for _, line in own],
            ]
            axis.errorbar(beside, middle, spread, color=color, marker="o", ls="", markersize=5, capsize=2, label=attack)
            axis.plot(beside, [line["any_of_k"] for _, line in own], color=color, marker="o", ls="", mfc="none", ms=4)
        for i, (_, row) in enumerate(held):
            axis.hlines(row.best_measured["natural"], i - 0.4, i + 0.4, color="#999999", lw=1)
        axis.set_xticks(range(len(held)), [label.replace(" ", "\n") for label, _ in held], fontsize=8)
        axis.set(title=f"{which}, {norm} {eps}, n = {n}", ylim=(0, 101))
    axes[0].set_ylabel("accuracy, % (hollow: any of K)")
    handles, names = axes[0].get_legend_handles_labels()
    drawn.legend(handles, names, loc="outside upper center", ncols=len(names), fontsize=8, title="attacker")
    out.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(out, dpi=110)
    return out


def _panels(rows: Sequence[Row], order: Sequence[str]) -> dict[Panel, list[tuple[str, Row]]]:
    """Budgets from small to large, largest n first; within one the purifiers in the table's order, with their labels."""
    from lgap_bench.cell.values import fraction

    named = [(" ".join(filter(None, [row.facts["purifier"], text])), row) for row, text in _told(rows)]
    panels: dict[Panel, list[tuple[str, Row]]] = defaultdict(list)
    for label, row in sorted(named, key=lambda one: (_place(one[1].facts["purifier"], order), one[0])):
        panels[tuple(row.facts[key] for key in ("dataset", "norm", "eps", "n"))].append((label, row))  # type: ignore[index]
    return dict(sorted(panels.items(), key=lambda item: (item[0][0], -item[0][3], fraction(item[0][2], "eps"))))


def _told(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    return list(zip(rows, differences(rows), strict=True))


def _place(purifier: str, order: Sequence[str]) -> int:
    return list(order).index(purifier) if purifier in order else len(order)


def _lines(panels: Mapping[Panel, Sequence[tuple[str, Row]]]) -> list[dict[str, Any]]:
    """One line per purifier and attack, for the CSV."""
    found = []
    for held in panels.values():
        for label, row in held:
            differs = label.removeprefix(row.facts["purifier"]).strip() or None
            found += [{**line, "attack": attack, "differs": differs} for attack, line in row.lines.items()]
    return found


def _shown(line: Mapping[str, Any], key: str) -> str | None:
    if line.get(key) is None:
        return None
    interval = f" ({line[f'{key}_low']:.1f}-{line[f'{key}_high']:.1f})" if f"{key}_low" in line else ""
    of = f", of {line['compared']}" if "compared" in line else ""
    return f"{line[key]:.1f}{interval}{of}"


def _range(seeds: Sequence[int]) -> str:
    return str(min(seeds)) if min(seeds) == max(seeds) else f"{min(seeds)}-{max(seeds)}"
