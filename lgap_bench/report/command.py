"""`lgap-bench report`: all records as one table, or a paper's table with its published values. It never runs a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgap_bench.record import records
from lgap_bench.report import compare, curve, language, paper
from lgap_bench.report.captions import print_tables
from lgap_bench.report.grid import draw_grids
from lgap_bench.report.table import COLUMNS, MORE, as_markdown, as_text, grouped, merge, name_differences, write_csv

KEYS = ("table", "dataset", "outputs")


def main() -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Records as one table, seeds merged; `table=lgap/1` sets a paper's values beside them.",
        epilog="table=lgap/1 ... lgap/4, lgap/language, coup/1 ... coup/finding; dataset=digits picks the scale; paper tables are exported to <outputs>/tables/.",
    )
    parser.add_argument("keys", nargs="*", metavar="key=value", help="table=..., dataset=..., outputs=...")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("--csv", type=Path, help="also write the table, with more columns, to this file")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--captions", action="store_true", help="what the attacks did to the captions, instead")
    arguments = parser.parse_args()
    keys = _keys(arguments.keys)
    outputs = Path(keys.get("outputs", arguments.outputs))
    if "table" in keys:
        if arguments.csv or arguments.captions:
            raise ValueError(
                "table=... with --csv or --captions: a paper's table is always exported, use one or the other"
            )
        _paper(keys["table"], outputs, keys.get("dataset"), arguments.markdown)
    else:
        _all(outputs, arguments.csv, arguments.markdown, arguments.captions)


def _keys(texts: Sequence[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if key not in KEYS or not value:
            raise ValueError(f"{text} is not a key of report: use table=lgap/1, dataset=digits, outputs=...")
        keys[key] = value
    return keys


def _paper(name: str, outputs: Path, dataset: str | None, markdown: bool) -> None:
    table = paper.load(name)
    if "sweep" in table:
        return language.report(name, outputs, dataset, markdown)
    if "compare" in table:
        return compare.report(name, outputs, dataset, markdown)
    if "curve" in table:
        return curve.report(name, outputs, dataset, markdown)
    if "pictures" in table:
        return _pictures(name, table, outputs, dataset)
    title = table["title"]
    for which, rows in paper.tables(name, outputs, dataset).items():
        columns = [
            c
            for c in paper.COLUMNS
            if c in ("row", "paper_robust", "robust") or any(r.get(c) is not None for r in rows)
        ]
        text = (as_markdown if markdown else as_text)(rows, columns)
        print(f"{title}. Measured on: {which}\n\n{text}\n")
        if not any(row.get("records") for row in rows):
            print(f"Published values alone: no record of its experiments in {outputs / 'records'}\n")
            continue
        stem = outputs / "tables" / f"{name.replace('/', '-')}-{which.replace(' ', '-')}"
        write_csv(rows, stem.with_suffix(".csv"), paper.EXPORTED)
        stem.with_suffix(".md").write_text(f"# {title}\n\nMeasured on: {which}\n\n{as_markdown(rows, columns)}\n")
        print(f"{stem.with_suffix('.csv')}  {stem.with_suffix('.md')}\n")


def _pictures(name: str, table: Mapping[str, Any], outputs: Path, dataset: str | None) -> None:
    """The grids of some experiments under one another, the record with the smallest seed of each."""
    found = []
    for experiment, title in table["pictures"].items():
        own = [record for record in records(outputs) if language.requested_by(record, experiment, dataset)]
        found += [(record, title) for record in sorted(own, key=lambda record: record.summary()["seed"])[:1]]
    if not found:
        raise ValueError(f"table={name}: no record of its experiments in {outputs / 'records'}: run make tables")
    out = outputs / "tables" / f"{name.replace('/', '-')}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{table['title']}\n\n{draw_grids(found, found[0][0].classes(), out)}")


def _all(outputs: Path, csv: Path | None, markdown: bool, captions: bool) -> None:
    found = records(outputs)
    if not found:
        raise ValueError(
            f"outputs={outputs}: no finished record in {outputs / 'records'}: run a cell first, `lgap-bench run`"
        )
    if captions:
        return print_tables(found, markdown, csv)
    groups = grouped(found)
    rows = [merge(group) for group in groups]
    name_differences(rows, [group[0].identity() for group in groups])
    rows.sort(key=_order)
    columns = [*COLUMNS[:6], "seeds", *COLUMNS[6:]] + (["differs"] if any(row["differs"] for row in rows) else [])
    print((as_markdown if markdown else as_text)(rows, columns))
    if csv:
        write_csv(rows, csv, (*COLUMNS, *MORE, "differs"))
        print(f"written to {csv}")


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    keys = ("dataset", "norm", "eps", "purifier", "captioner")
    return (*(row[key] or "" for key in keys), -(row.get("robust") or 0.0))
