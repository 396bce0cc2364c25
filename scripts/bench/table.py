"""The benchmark's JSON as Markdown."""

from __future__ import annotations

from typing import Any


def markdown(report: dict[str, Any]) -> str:
    """Machine, then one section per part."""
    facts = report["machine"]
    machine = ", ".join(f"{key} {value}" for key, value in facts.items())
    sections = [f"`{report['command']}`, {report['seconds']:.0f} s. {machine}."]
    for name, part in report["parts"].items():
        sections.append("\n\n".join([f"### {name}: {part['title']}", *_goal(part), *_body(part)]))
    return "\n\n".join(sections) + "\n"


def _goal(part: dict[str, Any]) -> list[str]:
    if not part.get("goal"):
        return []
    met = "; ".join(f"{name}: {'met' if yes else 'missed'}" for name, yes in part["met"].items())
    return [f"Goal: {part['goal']}. {met}."]


def _body(part: dict[str, Any]) -> list[str]:
    body: list[str] = []
    if "weights" in part:
        body.append("Weights: " + ", ".join(f"{k} {v / 1e6:.1f} M" for k, v in part["weights"].items()) + ".")
    if "seconds" in part:
        body.append(_race(part))
    if "images" in part:
        head = ["images", "ms per image", "spread", "CPU ms per image", "peak MiB"]
        rows = [
            [n, f"{v['ms_per_image']['median']:.1f}", _range(v["ms_per_image"], 1),
             f"{v['cpu_ms_per_image']['median']:.1f}", f"{v['peak_mib']['median']:.0f}"]
            for n, v in part["images"].items()
        ]  # fmt: skip
        body.append(_table(head, rows))
    if "outside_percent" in part:
        rows = [
            [title, f"{part[key]['median']:.1f}", _range(part[key], 1)]
            for title, key in (("whole cell", "outside_percent"), ("its loop over chunks", "outside_percent_of_loop"))
        ]
        body.append(_table(["of", "percent outside the models", "spread"], rows))
    if "components" in part:
        rows = [[c["name"], f"{c['seconds']:.2f}", f"{c['percent']:.1f}", str(c["calls"])] for c in part["components"]]
        body.append(_table(["component", "seconds", "percent", "calls"], rows))
    for key, inner in part.items():
        if isinstance(inner, dict) and "ratios" in inner:
            body += [f"*{key}*", *_body(inner)]
    return body


def _race(part: dict[str, Any]) -> str:
    """One row per contestant; what is missing in a part is a dash."""
    ratios = part.get("ratios", {})
    base = next(iter(ratios)).split(" / ")[1] if ratios else ""
    extra = {key: part[key] for key in ("accuracy", "counts", "peak_mib") if key in part}
    head = ["contestant", "seconds, median", "spread"]
    head += [f"of {base}: medians", "pairs", "CPU time"] if ratios else []
    head += [{"accuracy": "robust, %", "counts": "through the models", "peak_mib": "peak MiB"}[k] for k in extra]
    rows = []
    for name, seconds in part["seconds"].items():
        row = [name, f"{seconds['median']:.2f}", _range(seconds, 2)]
        if ratios:
            ratio = ratios.get(f"{name} / {base}")
            row += (
                ["1", "–", "1"]
                if ratio is None
                else [f"{ratio['of_medians']:.2f}", _range(ratio["pairs"], 2), f"{ratio['cpu']:.2f}"]
            )
        rows.append(row + [_cell(values.get(name)) for values in extra.values()])
    return _table(head, rows)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        if value.keys() == {"calls", "rows"}:
            return f"{value['rows']} rows"
        return ", ".join(f"{key} {_cell(inner)}" for key, inner in value.items())
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _range(values: dict[str, Any], digits: int) -> str:
    return "–".join(f"{values[key]:.{digits}f}" for key in ("min", "max"))


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
