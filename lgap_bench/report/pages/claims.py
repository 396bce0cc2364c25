"""What a paper claims: the published number, what its own attacker leaves here, the lowest number of all, and the verdict in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgap_bench.record import Record, records
from lgap_bench.report.page import Empty, Page, Table
from lgap_bench.report.rows import Merge, grouped, interval, merge, settings_line
from lgap_bench.report.select import Requested, requested
from lgap_bench.report.worst import worst_per_image

COLUMNS = ("claim", "published", "same_attack", "lowest", "interval", "lowest_by", "verdict", "on")
MINIATURE = ("digits", "scenes")  # come with the code; no paper's numbers are of them
FREE = ("n", "subset", "numerics_version")  # overrides under which a record still speaks of the claim
UNMEASURED = "not measured here"
Line = dict[str, Any]


def page(name: str, table: Mapping[str, Any], outputs: Path, dataset: str | None, merge: Merge = merge) -> Page:
    """The claims of one paper; without any record the published numbers alone."""
    rows = held(table, records(outputs), dataset, merge)
    left = (
        []
        if all(row["lines"] for row in rows)
        else [f"not run: `lgap-bench tables {name.split('/')[0]}` measures all of it"]
    )
    return Page(
        name.replace("/", "-"),
        table["title"],
        settings_line([line for row in rows for line in row["lines"]]),
        [Table(COLUMNS, rows)],
        [Table((*COLUMNS, "source", "records"), [{**row, "source": table["source"]} for row in rows])],
        notes=(
            "same_attack: under the attacker of the paper. lowest: under the strongest of all attackers tried.",
            *left,
            *table.get("notes", ()),
        ),
        measured=any(row["lines"] for row in rows),
    )


def held(
    table: Mapping[str, Any], found: Sequence[Record], dataset: str | None = None, merge: Merge = merge
) -> list[Line]:
    """A row per claim, once per data set that it was measured on; `lines` are the merged ones behind it."""
    wanted = {each for claim in table["claims"] for each in _names(claim)}
    asked = requested(found, wanted)
    rows: list[Line] = []
    for claim in table["claims"]:
        cells = {name: _meant(asked, name, claim, dataset) for name in _names(claim)}
        met = sorted({record.summary()["dataset_name"] for own in cells.values() for record, _ in own})
        rows += [row for each in met if (row := _row(claim, cells, each, merge)) is not None] or [_unmeasured(claim)]
    return rows


def _names(claim: Mapping[str, Any]) -> list[str]:
    return [*claim["protocol"], *claim.get("experiments", ()), *claim.get("over", ())]


def _meant(asked: Requested, name: str, claim: Mapping[str, Any], dataset: str | None) -> list[tuple[Record, str]]:
    """An experiment's records with the claim's own overrides and no other that changes what is measured."""
    kept = []
    for record, text in asked.get(name, ()):
        told = [word for word in text.split() if word.split("=")[0].lstrip("+") not in FREE]
        if told == claim.get("where", []) and dataset in (None, record.summary()["dataset_name"]):
            kept.append((record, text))
    return kept


def _row(claim: Mapping[str, Any], cells: Requested, dataset: str, merge: Merge) -> Line | None:
    """The claim on one data set; None where the paper's side of it was not measured there."""
    own = {name: [(r, t) for r, t in each if r.summary()["dataset_name"] == dataset] for name, each in cells.items()}
    sides = [[*claim["protocol"], *claim.get("experiments", ())], list(claim.get("over", ()))]
    ours, theirs = (_lines({name: own[name] for name in side}, claim["of"], merge) for side in sides)
    if not ours or (sides[1] and not theirs):
        return None
    same = [line for line in ours if line["experiment"] in claim["protocol"]]
    row = _said(claim)
    if sides[1]:
        row |= _difference(claim, same, ours, theirs)
    else:
        of, lowest = claim["of"], _lowest(ours, claim["of"])
        row |= {"same_attack": _lowest(same, of)[of] if same else Empty.NOT_RUN, "lowest": lowest[of]}
        row |= {"interval": interval(lowest, of), "lowest_by": lowest["said"], "verdict": _verdict(claim, lowest)}
        row |= {"lines": [lowest]}
    names = [name for line in row["lines"] for name in line["records"].split()]
    row["records"] = " ".join(dict.fromkeys(names))
    row["on"] = settings_line(row["lines"]).removeprefix("Measured on: ")
    return {**row, "verdict": row["verdict"] + (" (in miniature)" if dataset in MINIATURE else "")}


def _said(claim: Mapping[str, Any]) -> Line:
    """The paper's words and number, the number with the digits that tables of published values have."""
    value = claim["published"]
    return {"claim": claim["claim"], "published": value if isinstance(value, str) else f"{value:.2f}"}


def _unmeasured(claim: Mapping[str, Any]) -> Line:
    row = _said(claim)
    row |= dict.fromkeys(("same_attack", "lowest", "interval", "lowest_by"), Empty.NOT_RUN)
    return {**row, "verdict": UNMEASURED, "on": None, "lines": [], "records": ""}


def _lines(cells: Requested, of: str, merge: Merge) -> list[Line]:
    """One line per experiment and group of seeds that has the number, and the worst attack per image where several met."""
    found: list[Line] = []
    for name, own in cells.items():
        for group in grouped([record for record, _ in own]):
            line = merge(group)
            found.append({**line, "experiment": name, "said": f"{line['attack']} (view {line['view']})"})
    several = worst_per_image(cells) if of == "robust" and sum(map(bool, cells.values())) > 1 else []
    found += [{**line, "experiment": None, "said": f"worst of {line['compared']}, per image"} for line in several]
    return [line for line in found if of in line]


def _lowest(lines: Sequence[Line], of: str) -> Line:
    return min(lines, key=lambda line: float(line[of]))


def _difference(claim: Mapping[str, Any], same: Sequence[Line], ours: Sequence[Line], theirs: Sequence[Line]) -> Line:
    """Points between two defenses: under the paper's attackers, and each under its own lowest, over the same images alone."""
    of = claim["of"]
    alike = defaultdict(list)
    for line in theirs:
        alike[_images(line)].append(line)
    pairs = [(_lowest([o for o in ours if _images(o) == key], of), _lowest(alike[key], of)) for key in map(_images, ours) if key in alike]  # fmt: skip
    if not pairs:
        return {**_unmeasured(claim), "verdict": "open: the two were not measured on the same images"}
    this, other = min(pairs, key=lambda pair: float(pair[0][of]))
    first = [line for line in theirs if line["experiment"] == claim["over"][0]]
    known = [(a, b) for a in same for b in first if _images(a) == _images(b)][:1]
    points = float(this[of]) - float(other[of])
    if this["verdict"] == "invalid" or other["verdict"] == "invalid":
        verdict = "open: a measurement failed"
    elif max(this[f"{of}_low"], other[f"{of}_low"]) <= min(this[f"{of}_high"], other[f"{of}_high"]):
        verdict = "open: the intervals overlap"
    else:
        verdict = "yes: higher" if points > 0 else "no: lower"
    return {
        "same_attack": f"{float(known[0][0][of]) - float(known[0][1][of]):+.1f}" if known else Empty.NOT_RUN,
        "lowest": f"{points:+.1f}", "interval": None, "lowest_by": f"{this['said']}; {other['said']}",
        "verdict": verdict, "lines": [this, other],
    }  # fmt: skip


def _images(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["dataset"], line["n"], line["norm"], line["eps"]


def _verdict(claim: Mapping[str, Any], lowest: Line) -> str:
    """Whether the lowest number found bears the claim; an upper bound that is high bears nothing."""
    of, published = claim["of"], float(claim["published"])
    low, high = lowest.get(f"{of}_low", float(lowest[of])), lowest.get(f"{of}_high", float(lowest[of]))
    if lowest["verdict"] == "invalid":
        return "open: the measurement failed"
    if high < published:
        return "no: lower than published"
    if of == "success":  # the attacker's own claim: more of it is found already
        return "yes: as high as published" if low >= published else "open: within the interval"
    if low <= published:
        return "open: within the interval"
    return {
        "sound": "yes, against the attacks tried",
        "not judged": "open: higher, but its record was not judged: measure it again",
    }.get(lowest["verdict"], "open: higher, but an upper bound: a stronger attack exists")
