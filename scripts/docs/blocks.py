"""Generated blocks of the pages: what stands between `<!-- made: lgap-1-digits -->` and `<!-- /made -->` comes from docs/records/.

    <!-- made: lgap-1-digits without=view columns=row,robust,interval png=lgap_1.png tables=0,1 notes=no -->

`columns` picks columns and their order, `without` leaves some out, `tables` picks some of a page's tables, `png` sets the
page's figure below them, `notes=no` leaves out what is said around them: settings, legend, notes. All are optional.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgap_bench.report.page import Table, legend
from lgap_bench.report.write import as_markdown
from scripts.docs.kept import Kept, gathered, read

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^<!-- made: (?P<words>[^\n]*?) -->\n(?P<body>.*?)^<!-- /made -->", re.DOTALL | re.MULTILINE)
PENDING = "*Typed: no record of it was gathered yet.*"  # a block says so until its records are there
MARKER = re.compile(r"^<!-- /?made\b", re.MULTILINE)  # at the start of a line: a sentence may speak of markers
OPTIONS = ("columns", "without", "tables", "png", "notes")
UNREAD = ("to_run", "differs")  # columns that a page shows only where they tell rows apart, or not at all
HEADINGS = {
    "row": "",
    "caption_label_clean": "caption names it, clean",
    "caption_label_attacked": "caption names it, attacked",
    "interval": "95 % interval",
    "any_of_k": "any of K",
    "natural_any_of_k": "clean, any of K",
}


@dataclass(frozen=True)
class Block:
    """A marker: which page's records, and what of them."""

    name: str
    options: Mapping[str, str]

    def listed(self, key: str) -> list[str]:
        """An option of several words."""
        return [each for each in self.options.get(key, "").split(",") if each]


def pages() -> list[Path]:
    """Every page that may hold a block."""
    return [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page, in order. Raises ValueError for a marker that is not closed or not understood."""
    found = list(BLOCK.finditer(text))
    if 2 * len(found) != len(MARKER.findall(text)):
        raise ValueError("a marker `made` without its end, or an end without its marker")
    for each in found:
        yield block(each["words"])


def shown() -> set[str]:
    """The names of all blocks of all pages."""
    return {each.name for page in pages() for each in blocks(page.read_text())}


def block(words: str) -> Block:
    """A marker's words."""
    name, *more = words.split()
    options = dict(word.partition("=")[::2] for word in more)
    if unknown := sorted(options.keys() - set(OPTIONS)):
        raise ValueError(f"{name}: {', '.join(unknown)} is no option of a block: use {', '.join(OPTIONS)}")
    return Block(name, options)


def made(text: str, find: Callable[[str], Kept] = read) -> str:
    """A page's text with all its blocks made anew."""
    list(blocks(text))  # refused as a whole, before half of it is replaced
    return BLOCK.sub(lambda each: _whole(each, find), text)


def _whole(each: re.Match[str], find: Callable[[str], Kept]) -> str:
    own = block(each["words"])
    if PENDING in each["body"] and not gathered(own.name):
        return each[0]
    return f"<!-- made: {each['words']} -->\n\n{body(own, find(own.name))}\n\n<!-- /made -->"


def pending(text: str) -> set[str]:
    """The names of blocks that still hold what was typed."""
    found = BLOCK.finditer(text)
    return {name for each in found if PENDING in each["body"] and not gathered(name := block(each["words"]).name)}


def body(own: Block, kept: Kept) -> str:
    """What stands between the markers."""
    page = kept.page
    picture = f"![{page.title}]({own.options['png']})" if "png" in own.options else ""
    chosen = [int(each) for each in own.listed("tables")] or range(len(page.tables))
    parts, told = [], own.options.get("notes") != "no"
    parts += [page.settings] if told else []
    shown = [_table(page.tables[place], own) for place in chosen]
    for table in shown:
        parts += [f"**{table.caption}**" if table.caption else "", _markdown(table)]
    parts += [legend(shown), "\n".join(f"- {note}" for note in page.notes)] if told else []
    return "\n\n".join(part for part in [*parts, picture, str(kept.made)] if part)


def _table(table: Table, own: Block) -> Table:
    """A table with the columns that are meant, without those that say nothing in any row."""
    known = {*table.columns, *(key for row in table.rows for key in row)}
    columns = [each for each in own.listed("columns") if each in known]  # none of a second table of another kind
    columns = columns or [each for each in table.columns if not _silent(table, each)]
    left = [each for each in columns if each not in own.listed("without")]
    return Table(left, [_row(row, left) for row in table.rows], table.caption)


def _silent(table: Table, column: str) -> bool:
    told = [row.get(column) for row in table.rows if row.get(column) not in (None, "")]
    return column == "to_run" or (column in UNREAD and not told)


def _row(row: Mapping[str, Any], columns: list[str]) -> dict[str, Any]:
    """A row; a heading inside a table stands in italics, its other cells are blank."""
    first = str(row.get(columns[0], ""))
    if not (first.startswith("[") and first.endswith("]")):
        return dict(row)
    return {**dict.fromkeys(columns, ""), columns[0]: f"*{first[1:-1]}*"}


def _markdown(table: Table) -> str:
    _, rule, *rows = as_markdown(table.rows, table.columns).splitlines()
    names = [HEADINGS.get(each, each.replace("paper_", "paper: ").replace("_", " ")) for each in table.columns]
    return "\n".join(["| " + " | ".join(names) + " |", rule, *rows])
