"""The ladder of attackers: per defense everyone who attacked it on the same images, from who sees least to who finds most."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lgap_bench.record import Record
from lgap_bench.report import figure
from lgap_bench.report.page import Table
from lgap_bench.report.rows import Merge, apart, brief, defense, grouped, interval, merge, told
from lgap_bench.report.worst import most_attacked, worst_line

VIEWS = ("none", "blind", "query", "bpda", "surrogate", "adjoint", "detached", "full")  # from who sees least
COLUMNS = (
    "attack",
    "view",
    "robust",  # early: a phone shows three columns
    "interval",
    "verdict",
    "gradient_calls",
    "any_of_k",
    "natural",
    "seeds",
    "differs",
)


@dataclass(frozen=True)
class Ladder:
    """One defense: its name, on what, the attackers' lines with the worst per image last, the lowest of all.

    `bare`: a classifier without a purifier.
    """

    title: str
    settings: str
    lines: Sequence[Mapping[str, Any]]
    lowest: Mapping[str, Any] | None
    bare: bool = False

    @property
    def table(self) -> Table:
        """As a table."""
        columns = COLUMNS if any(line.get("differs") for line in self.lines) else COLUMNS[:-1]
        return Table(columns, self.lines, f"{self.title}, {self.settings}")


def ladders(found: Sequence[Record], merge: Merge = merge) -> list[Ladder]:
    """A ladder per defense, those of most attackers first."""
    by_defense: dict[str, list[Record]] = defaultdict(list)
    for record in found:
        by_defense[json.dumps(defense(record), sort_keys=True)].append(record)
    facts = [_facts(cells[0]) for cells in by_defense.values()]
    differences = apart([json.loads(key) for key in by_defense], [json.dumps(each) for each in facts])
    made = [_ladder(cells, *fact, _brief(more), merge) for cells, fact, more in zip(by_defense.values(), facts, differences, strict=True)]  # fmt: skip
    return sorted(made, key=lambda each: -len(each.lines))


def gradient_calls(attack: object) -> int | None:
    """Gradients per image by an attack's settings: steps x draws x restarts, members added; None where it does not say.

    It is the most: samples that are broken early leave.
    """
    if not isinstance(attack, Mapping):
        return None
    steps = attack.get("steps", attack.get("n_iter"))
    if isinstance(steps, int):
        many = [attack.get(key, 1) for key in ("draws", "restarts")]
        return steps * int(many[0]) * int(many[1]) if all(isinstance(each, int) for each in many) else None
    members = [gradient_calls(each) for each in attack.values() if isinstance(each, Mapping)]
    known = [each for each in members if each is not None]
    return sum(known) if known else None


def alone(made: Sequence[Ladder]) -> Table:
    """Defenses that one attacker met, a row each: nothing there to climb."""
    rows = [{"defense": each.title, "on": each.settings, **line} for each in made for line in each.lines]
    columns = ("defense", "on", *(column for column in COLUMNS if column not in ("differs", "seeds")))
    return Table(columns, rows, "Met by one attacker alone")


def draw(ladder: Ladder) -> Any:
    """Robust accuracy with its interval over gradient calls, a colour per view; None for fewer than three kinds of attackers."""
    held = [line for line in ladder.lines if line.get("gradient_calls") and "robust" in line]
    if len(held) < 3 or len({(line["view"], line["gradient_calls"]) for line in held}) < 3:
        return None
    drawn, (axis,) = figure.panels(1, 6.4, 3.2)
    for place, view in enumerate(dict.fromkeys(line["view"] for line in held)):
        own = [line for line in held if line["view"] == view]
        color = figure.COLORS[place % len(figure.COLORS)]
        figure.accuracies(axis, [line["gradient_calls"] for line in own], own, view, color=color, ls="")
    worst = ladder.lines[-1]
    if "compared" in worst and "robust" in worst:
        label = f"worst of {worst['compared']} per image"
        axis.axhline(float(worst["robust"]), color=figure.INK, lw=1, ls="--", label=label)
    calls = sorted({line["gradient_calls"] for line in held})
    axis.set_xscale("log")
    axis.set_xticks([], minor=True)
    axis.set_xticks(calls, list(map(str, calls)), fontsize=figure.SMALL)
    axis.set(ylim=(0, 101), xlabel="gradients per image, at most", ylabel="robust accuracy, %")
    figure.legend(drawn, "view")
    return drawn


def _facts(record: Record) -> tuple[str, str]:
    s = record.summary()
    words = s["classifier_name"] if s["purifier_name"] == "none" else f"{s['purifier_name']} + {s['classifier_name']}"
    stages = [f"{stage} {s[f'{stage}_name']}" for stage in s.get("stages", ())]
    return ", ".join([words, *stages]), f"{s['dataset_name']}, {s['norm']} {brief(s['eps'])}, n = {s['n']}"


def _ladder(cells: Sequence[Record], title: str, settings: str, more: str, merge: Merge) -> Ladder:
    groups = grouped(cells)
    lines = [_line(group, merge) for group in groups]
    attacks = [{"attack": group[0].identity().get("attack")} for group in groups]
    alike = [(line["attack"], line["view"]) for line in lines]
    for line, different in zip(lines, apart([_flat(each) for each in attacks], alike), strict=True):
        line["differs"] = told(different) or None
    lines.sort(key=lambda line: (_place(line["view"]), line["gradient_calls"] or 0, -float(line.get("robust", 0.0))))
    by_seed: dict[int, dict[str, Record]] = defaultdict(dict)
    for record in cells:
        if "attacked_damage" in record.samples() and "robust" in record.summary():
            by_seed[record.summary()["seed"]][_attacker(record)] = record
    measured = [line for line in lines if "robust" in line]
    met = list(most_attacked(by_seed).values()) if by_seed else []
    if met and len(met[0]) > 1:
        worst = worst_line([list(each.values()) for each in met], len(met[0]))
        lines.append({**worst, "differs": None, "gradient_calls": None})
        measured += [lines[-1]] if "robust" in worst else []
    name = f"{title} ({more})" if more else title
    lowest = min(measured, key=lambda line: float(line["robust"]), default=None)
    return Ladder(name, settings, lines, lowest, cells[0].summary()["purifier_name"] == "none")


def _brief(differences: Mapping[str, Any]) -> str:
    """What sets a defense apart, for a heading: parts by their module, weights by eight digits, code and lists left out."""
    kept = {}
    for key, value in differences.items():
        if isinstance(value, list | dict) or key.startswith("code."):
            continue
        if key.endswith("._target_"):
            key, value = key.removesuffix("._target_"), str(value).split(".")[-2:][0]
        kept[key] = str(value)[:8] if key.endswith("weights") else value
    return told(kept)


def _line(group: Sequence[Record], merge: Merge) -> dict[str, Any]:
    line = merge(group)
    calls = None if line["attack"] == "none" else gradient_calls(group[0].identity().get("attack"))
    return {**line, "interval": interval(line), "gradient_calls": calls}


def _attacker(record: Record) -> str:
    return json.dumps([record.identity().get("attack"), record.identity().get("view")], sort_keys=True)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    attack = settings["attack"]
    held = attack.items() if isinstance(attack, Mapping) else ()
    return {f"attack.{key}": float(f"{value:.4g}") if isinstance(value, float) else value for key, value in held}


def _place(view: str) -> int:
    first = view.split()[0].rstrip(",") if view else "none"
    return VIEWS.index(first) if first in VIEWS else len(VIEWS)
