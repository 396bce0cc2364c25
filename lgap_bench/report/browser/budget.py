"""Accuracy over the budget: a defense under one attacker at several eps, wherever they were recorded."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lgap_bench.cell.config import STAGES
from lgap_bench.cell.values import fraction
from lgap_bench.record import Record
from lgap_bench.report import figure
from lgap_bench.report.rows import Merge, defense, grouped, merge

EPS = "threat.eps"
APART = 1.25  # how many times its smallest budget a line reaches at least: 48/255 beside 48/256 is no curve
Line = Sequence[Mapping[str, Any]]  # merged rows, from the smallest budget


@dataclass(frozen=True)
class Budgets:
    """One defense: its name, on what, and a line per attacker."""

    title: str
    lines: Mapping[str, Line]


def budgets(found: Sequence[Record], merge: Merge = merge) -> list[Budgets]:
    """The defenses that some attacker met at two budgets or more; those of most points first.

    Steps that follow from the budget may differ along a line, everything else is the same.
    """
    lines: dict[str, dict[str, dict[float, list[dict[str, Any]]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))  # fmt: skip
    for group in grouped(found):
        row = merge(group)
        held = {key: value for key, value in defense(group[0]).items() if key != EPS}
        if "robust" in row and row["attack"] != "none":
            eps = fraction(row["eps"], EPS)
            lines[json.dumps(held, sort_keys=True)][_attacker(group[0])][eps].append(row)
    made = []
    for attackers in lines.values():
        # Two rows at one budget are two attacks of one name: no line joins them honestly.
        kept = {
            name: [rows[0] for _, rows in sorted(points.items())]
            for name, points in attackers.items()
            if max(points) >= APART * min(points) and all(len(rows) == 1 for rows in points.values())
        }
        if kept:
            first = next(iter(kept.values()))[0]
            made.append(Budgets(_title(first), _named(kept)))
    return sorted(made, key=lambda each: -sum(map(len, each.lines.values())))


def draw(each: Budgets) -> Any:
    """Robust accuracy with its interval over eps, a line per attacker; natural accuracy is the dashed one."""
    drawn, (axis,) = figure.panels(1, 6.4, 3.2)
    for place, (name, line) in enumerate(each.lines.items()):
        color = figure.COLORS[place % len(figure.COLORS)]
        figure.accuracies(axis, [fraction(row["eps"], EPS) for row in line], line, name, color=color)
    longest = max(each.lines.values(), key=len)
    natural = [row["natural"] for row in longest]
    axis.plot([fraction(row["eps"], EPS) for row in longest], natural, color=figure.FAINT, ls="--", label="natural")
    axis.set(ylim=(0, 101), xlabel=f"eps, {longest[0]['norm']}", ylabel="robust accuracy, %")
    figure.legend(drawn, "attacker", 3)
    return drawn


def _attacker(record: Record) -> str:
    """The attack without its numbers that are lengths, such as a step of eps / 4."""
    identity = record.identity()
    attack = identity.get("attack")
    kept = {key: value for key, value in attack.items() if not isinstance(value, float)} if isinstance(attack, Mapping) else attack  # fmt: skip
    return json.dumps([record.summary()["attack_name"], identity.get("view"), kept], sort_keys=True)


def _named(lines: Mapping[str, Line]) -> dict[str, Line]:
    """Each line by its attack and view, numbered where two would read the same."""
    named: dict[str, Line] = {}
    for line in lines.values():
        name = f"{line[0]['attack']} ({line[0]['view']})"
        named[name if name not in named else f"{name}, {len(named) + 1}"] = line
    return named


def _title(row: Mapping[str, Any]) -> str:
    purifier = "" if row["purifier"] == "none" else f"{row['purifier']} + "
    stages = [f", {stage} {row[stage]}" for stage in STAGES if row.get(stage) not in (None, "none")]
    return f"{purifier}{row['classifier']}{''.join(stages)}, {row['dataset']}, n = {row['n']}"
