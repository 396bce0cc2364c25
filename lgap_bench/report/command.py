"""`lgap-bench report`: all records as one table, or an item of a paper with its published values. It never runs a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lgap_bench.report import write
from lgap_bench.report.html import experiments_of, write_report
from lgap_bench.report.missing import begun
from lgap_bench.report.page import Page, Unmeasured
from lgap_bench.report.pages import all as all_records
from lgap_bench.report.pages import captions, claims, compare, curve, language, paper, pictures, strata
from lgap_bench.report.rows import Merge, Merger, merge
from lgap_bench.report.tested import with_tests
from lgap_bench.runtime.words import Parser

KEYS = ("table", "dataset", "outputs", "format", "html", "paired")
ALL = "all"  # every item of every paper that was measured
KINDS = {
    "claims": claims.page,
    "sweep": language.page,
    "compare": compare.page,
    "curve": curve.page,
    "pictures": pictures.page,
    "strata": strata.page,
}


def main() -> None:
    """Print the pages that the command line asks for, and write a paper's to <outputs>/tables/."""
    arguments = _arguments()
    keys = _keys(arguments.keys)
    outputs = Path(keys.get("outputs", arguments.outputs))
    form = keys.get("format", "md" if arguments.markdown else "text")
    if form not in write.PRINTED:
        raise ValueError(f"format={form} is not known: use one of {', '.join(write.PRINTED)}")
    if "html" in keys:
        if arguments.csv or arguments.captions or "format" in keys:
            raise ValueError(
                "html=... with --csv, --captions or format=...: the page holds all of it, leave the others out"
            )
        table = None if keys.get("table") == ALL else keys.get("table")
        print(f"written to {write_report(Path(keys['html']), outputs, item, table, keys.get('dataset'))}")
        return
    if "paired" in keys and "table" not in keys:
        raise ValueError(f"paired={keys['paired']} without a table: name one, table=lgap/1")
    if "table" not in keys:
        found = all_records.finished(outputs, keys.get("dataset"))
        page = captions.page(found) if arguments.captions else all_records.page(found)
        files = write.write_csv(page, arguments.csv) if arguments.csv else []
        print(write.PRINTED[form](page))
        if files:
            print(f"written to {' and '.join(map(str, files))}")
        return
    if arguments.csv or arguments.captions:
        raise ValueError("table=... with --csv or --captions: a paper's table is always exported, use one or the other")
    whole = keys["table"] == ALL
    if (paired := keys.get("paired", "false")) not in ("true", "false"):
        raise ValueError(f"paired={paired} is not known: use paired=true, for tests between the rows, or leave it away")
    names = paper.known() if whole else [keys["table"]]
    print_items(names, outputs, keys.get("dataset"), form, whole, paired == "true")


def print_items(
    names: Sequence[str],
    outputs: Path,
    dataset: str | None = None,
    form: str = "text",
    measured: bool = False,
    paired: bool = False,
    merge: Merge | None = None,
) -> None:
    """Items of a paper, printed and, where they were measured, written to <outputs>/tables/.

    `measured`: leave out those of which nothing was. `paired`: with tests between their rows. `merge`: shared with the caller's other items. Raises ValueError if nothing is left.
    """
    pages, shared = [], merge or Merger()
    for name in names:
        try:
            pages += [page for page in item(name, outputs, dataset, shared) if page.measured or not measured]
        except Unmeasured:
            if not measured:
                raise
    if not pages:
        raise ValueError(
            f"table=all: no item of a paper was measured in {outputs / 'records'}: run `lgap-bench tables lgap dataset=digits`"
        )
    pages = [with_tests(page, outputs) for page in pages] if paired else pages
    # All files first: a reader who leaves early (`| head`) must not keep them from being written.
    written = [write.export(page, outputs / "tables") if page.measured else [] for page in pages]
    for page, files in zip(pages, written, strict=True):
        print(write.PRINTED[form](page), end="\n\n")
        if files and form == "text":
            print(*files, end="\n\n")


def item(name: str, outputs: Path, dataset: str | None = None, merge: Merge = merge) -> list[Page]:
    """The pages of an item of a paper: one, or one per data set that it was measured on. Callers of several share `merge`."""
    table = paper.load(name)
    half = [str(each) for each in begun(outputs, experiments_of(table), dataset)]
    return [replace(page, notes=[*page.notes, *half]) for page in _pages(name, table, outputs, dataset, merge)]


def _pages(name: str, table: Mapping[str, Any], outputs: Path, dataset: str | None, merge: Merge) -> list[Page]:
    for kind, page in KINDS.items():
        if kind in table:
            return [page(name, table, outputs, dataset, merge)]
    if not paper.experiments(table):
        return [paper.by_script(name, table)]
    return paper.pages(name, table, outputs, dataset, merge)


def _arguments() -> argparse.Namespace:
    parser = Parser(
        "report",
        "Records as one table, seeds merged; `table=lgap/1` sets a paper's values beside them.",
        epilog=f"table= is all or one of {', '.join(paper.known())}; format= is one of {', '.join(write.PRINTED)}; dataset=digits picks the scale; paired=true adds tests between the rows; paper tables are exported "
        "to <outputs>/tables/.",
    )
    parser.add_argument(
        "keys", nargs="*", metavar="key=value", help="table=..., dataset=..., outputs=..., format=..., html=<file>"
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("--csv", type=Path, help="also write the table, with more columns, to this file")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--captions", action="store_true", help="what the attacks did to the captions, instead")
    return parser.parse_intermixed_args()  # a flag may stand between keys


def _keys(texts: Sequence[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if key not in KEYS or not value:
            raise ValueError(
                f"{text} is not a key of report: use table=lgap/1, dataset=digits, outputs=..., format=latex, paired=true, html=report.html"
            )
        keys[key] = value
    return keys
