"""Purifiers x attacks: what each keeps under ever better attackers, as tables and a figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lgap_bench.cell.values import fraction
from lgap_bench.report import figure
from lgap_bench.report.missing import command, planned
from lgap_bench.report.page import Empty, Figure, Page, Table, Unmeasured, shown
from lgap_bench.report.paired import WORST, across
from lgap_bench.report.paired import differences as differences_of_pairs
from lgap_bench.report.rows import Merge, apart, interval, merge, settings_line, spread, told
from lgap_bench.report.select import Row, by_defense
from lgap_bench.report.worst import worst_line

COLUMNS = (
    "purifier", "differs", "attack", "view", "natural", "natural_low", "natural_high", "robust", "robust_low", "robust_high",
    "natural_any_of_k", "any_of_k", "natural_majority_of_k", "majority_of_k", "score_draws", "seeds", "n", "norm", "eps",
    "dataset", "classifier", "compared", "failed", "status", "records", "seconds",
)  # fmt: skip
Held = Sequence[tuple[str, Row]]  # label and row of every defense in a panel


class Panel(NamedTuple):
    """Rows of one panel may be compared with one another."""

    dataset: str
    norm: str
    eps: str
    n: int

    def __str__(self) -> str:
        return f"{self.dataset}, {self.norm} {self.eps}, {self.n} images"


def page(name: str, table: Mapping[str, Any], outputs: Path, dataset: str | None, merge: Merge = merge) -> Page:
    """The tables of every budget and the figure. Raises ValueError where there is no record of its experiments."""
    wanted = table["compare"]
    attacks = [*(experiment.rsplit("/", 1)[1] for experiment in wanted["experiments"]), WORST]
    rows = by_defense(wanted["experiments"], outputs, dataset, merge)
    if not rows:
        raise Unmeasured(
            f"table={name}: no record of its experiments in {outputs / 'records'}: run {wanted['script']} first"
        )
    for row in rows:
        if (line := worst(row)) is not None:
            row.lines[WORST] = line
    panels = _panels(rows, wanted["purifiers"])
    shown = [each for panel, held in panels.items() for each in _panel(panel, held, wanted, attacks, table)]
    left = [line for panel, held in panels.items() for line in _to_run(panel, held, wanted["experiments"], table)]
    shown += [Table(("missing", "to_run"), left, "not measured")] if left else []
    lines = _lines(panels)
    drawn = _drawn(panels)
    left_out = [str(panel) for panel in panels if panel not in drawn]
    notes = [f"not run: `{wanted['script']}` measures all of it", *table.get("notes", ())]
    notes += [f"not drawn, one defense alone: {'; '.join(left_out)}"] if left_out else []
    return Page(
        name.replace("/", "-"), table["title"], settings_line(lines), shown, [Table(COLUMNS, lines)],
        [Figure(lambda: draw(drawn, attacks))], notes,
    )  # fmt: skip


def worst(row: Row) -> dict[str, Any] | None:
    """The line of the worst attack per image, of the seeds that met the largest set of attacks; None for a set of one.

    `compared` says how many attacks it is the worst of.
    """
    by_seed = [list(found.values()) for found in row.most_attacked.values()]
    if len(by_seed[0]) < 2:
        return None
    seconds = sum(line["seconds"] for line in row.lines.values())
    return {**row.facts, **worst_line(by_seed, len(by_seed[0])), "seconds": seconds}


def tables(held: Held, attacks: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
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
            | {"seeds": spread([line["seeds"] for line in row.lines.values()]), "records": _records(row)}
            for label, row in held
        ]
    return found


def draw(panels: Mapping[Panel, Held], attacks: Sequence[str]) -> Any:
    """One plot per budget: robust accuracy of every purifier, a colour per attack, bars the 95 % interval.

    Hollow markers are any-of-K; the grey line is natural accuracy.
    """
    drawn, axes = figure.panels(len(panels), max(5.6, 1.1 * max(map(len, panels.values()))), 4.0)
    attacks = [attack for attack in attacks if any(attack in row.lines for held in panels.values() for _, row in held)]
    colors = [figure.INK if attack == WORST else color for attack, color in zip(attacks, figure.COLORS, strict=False)]
    for axis, (panel, held) in zip(axes, panels.items(), strict=True):
        for place, (attack, color) in enumerate(zip(attacks, colors, strict=False)):
            own = [(i, row.lines[attack]) for i, (_, row) in enumerate(held) if "robust" in row.lines.get(attack, {})]
            x = [i + 0.13 * (place - (len(attacks) - 1) / 2) for i, _ in own]
            lines = [line for _, line in own]
            figure.accuracies(axis, x, lines, attack, color=color, ls="", markersize=5)
            axis.plot(x, [line["any_of_k"] for line in lines], color=color, marker="o", ls="", mfc="none", ms=4)
        for i, (_, row) in enumerate(held):
            name = "natural" if i == 0 else None
            axis.hlines(row.best_measured["natural"], i - 0.4, i + 0.4, color=figure.FAINT, lw=1, label=name)
        axis.set_xticks(range(len(held)), [label.replace(" ", "\n") for label, _ in held], fontsize=figure.SMALL)
        axis.set(title=f"{panel.dataset}, {panel.norm} {panel.eps}, n = {panel.n}", ylim=(0, 101))
    axes[0].set_ylabel("accuracy, % (hollow: any of K)")
    figure.legend(drawn, "attacker", columns=4 * len(panels))
    return drawn


def _panel(
    panel: Panel, held: Held, wanted: Mapping[str, Any], attacks: Sequence[str], table: Mapping[str, Any]
) -> list[Table]:
    """The tables of one budget, an attack that none of its defenses met left out; `not run` where one is meant to be there."""
    measured = [attack for attack in attacks if any(attack in row.lines for _, row in held)]
    parts = tables(held, measured)
    if paired := differences_of_pairs(held, wanted.get("pairs", ()), measured):
        parts["difference of the means on the same images, in points (95 % interval)"] = paired
    if crossed := across(held, wanted.get("across", ())):
        parts["the same between two attacks"] = crossed
    lacking = {
        label: {name.rsplit("/", 1)[1] for name in _lacking(panel, row, wanted["experiments"], table)}
        for label, row in held
    }
    made = []
    for title, rows in parts.items():
        columns = [column for column in rows[0] if column != "records"]
        told = [{**row, **_not_run(row, lacking.get(str(row.get("purifier")), set()))} for row in rows]
        made.append(Table(columns, told, f"{panel}: {title}"))
    return made


def _not_run(row: Mapping[str, Any], lacking: Collection[str]) -> dict[str, Any]:
    return {key: Empty.NOT_RUN for key, value in row.items() if value is None and key in lacking}


def _lacking(panel: Panel, row: Row, experiments: Sequence[str], table: Mapping[str, Any]) -> list[str]:
    """The experiments that a defense has not met and the item's grids plan for it; all of them for one that no grid names."""
    plan, name = planned(table, panel.dataset), row.facts["purifier"]
    own = [each for each in plan if each.get("purifier", name) == name]
    sizes = {each.get("n") for each in plan}
    alike = [each["experiment"] for each in own if str(panel.n) not in sizes or each.get("n") == str(panel.n)]
    meant = set(alike) if own else set(experiments)
    return [each for each in experiments if each in meant and each.rsplit("/", 1)[1] not in row.lines]


def _to_run(panel: Panel, held: Held, experiments: Sequence[str], table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per defense what measures its missing cells."""
    lines = []
    for label, row in held:
        if missing := _lacking(panel, row, experiments, table):
            differs = label.removeprefix(row.facts["purifier"]).split()
            seeds = ",".join(str(seed) for seed in sorted(row.seeds))
            words = [f"purifier={row.facts['purifier']}", *differs, f"threat.eps={panel.eps}", f"n={panel.n}", f"seed={seeds}"]  # fmt: skip
            names = ", ".join(each.rsplit("/", 1)[1] for each in missing)
            lines.append({"missing": f"{label}, {panel.norm} {panel.eps}: {names}", "to_run": command(missing, *words, dataset=panel.dataset)})  # fmt: skip
    return lines


def _records(row: Row) -> str:
    """The ids behind all numbers of a defense."""
    return " ".join(dict.fromkeys(name for line in row.lines.values() for name in line["records"].split()))


def _panels(rows: Sequence[Row], order: Sequence[str]) -> dict[Panel, list[tuple[str, Row]]]:
    """Budgets from small to large, largest n first; within one the purifiers in the table's order, with their labels."""
    alike = [tuple(row.facts[key] for key in ("purifier", *Panel._fields)) for row in rows]
    differences = apart([row.identity for row in rows], alike)
    named = [
        (f"{row.facts['purifier']} {told(each)}".strip(), row) for row, each in zip(rows, differences, strict=True)
    ]
    panels: dict[Panel, list[tuple[str, Row]]] = defaultdict(list)
    for label, row in sorted(named, key=lambda one: (_place(one[1].facts["purifier"], order), one[0])):
        panels[Panel(*(row.facts[key] for key in Panel._fields))].append((label, row))
    return dict(sorted(panels.items(), key=lambda item: (item[0].dataset, -item[0].n, fraction(item[0].eps, "eps"))))


def _drawn(panels: Mapping[Panel, Held]) -> Mapping[Panel, Held]:
    """The budgets of at least two defenses: one alone is set against nothing. All where there is no such budget."""
    return {panel: held for panel, held in panels.items() if len(held) > 1} or panels


def _place(purifier: str, order: Sequence[str]) -> int:
    return list(order).index(purifier) if purifier in order else len(order)


def _lines(panels: Mapping[Panel, Held]) -> list[dict[str, Any]]:
    """One line per purifier and attack, for the CSV."""
    found = []
    for held in panels.values():
        for label, row in held:
            differs = label.removeprefix(row.facts["purifier"]).strip() or None
            found += [{**line, "attack": attack, "differs": differs} for attack, line in row.lines.items()]
    return found


def _shown(line: Mapping[str, Any], key: str) -> str | Empty | None:
    """`50.0 (42.1-57.9), of 3`; None for an attack that was not run, FAILED where it failed on every image."""
    if line.get(key) is None:
        return Empty.FAILED if line else None
    bounds = f" ({interval(line, key)})" if f"{key}_low" in line else ""
    of = f", of {line['compared']}" if "compared" in line else ""
    return f"{shown(line[key])}{bounds}{of}"
