"""The one writer: pages -> text, Markdown, LaTeX, HTML, CSV and PNG. Another format is one more function and one line in a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

from lgap_bench.report import figure
from lgap_bench.report.latex import latex
from lgap_bench.report.page import Empty, Page, Quantity, Rows, Table, legend, shown
from lgap_bench.runtime import files


def as_text(rows: Rows, columns: Sequence[str]) -> str:
    """An aligned plain-text table; columns of numbers to the right."""
    cells = [list(columns), *([shown(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [all(_number(row.get(column)) for row in rows) for column in columns]
    lines = [
        "  ".join(
            text.rjust(w) if right else text.ljust(w) for text, w, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def as_markdown(rows: Rows, columns: Sequence[str]) -> str:
    """The same table for a page on the web."""
    lines = [list(columns), ["---"] * len(columns), *([shown(row.get(column)) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_csv(rows: Rows, columns: Sequence[str]) -> str:
    """The same with full precision, for programs: what has no number is empty, the column `state` says why."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(columns)
    writer.writerows([[_exact(row.get(column)) for column in columns] for row in rows])
    return stream.getvalue()


def text(page: Page, markdown: bool = False) -> str:
    """A page as the command prints it, its tables as Markdown where wanted."""
    table = as_markdown if markdown else as_text
    parts = [line for line in (page.title, page.settings) if line]
    for each in page.tables:
        parts += [each.caption] if each.caption else []
        parts.append(table(each.rows, each.columns))
    return "\n\n".join([*parts, *_below(page)])


def markdown(page: Page) -> str:
    """A page as a file of Markdown."""
    parts = [f"# {page.title}", page.settings]
    for each in page.tables:
        parts += [f"**{each.caption}**" if each.caption else "", as_markdown(each.rows, each.columns)]
    return "\n\n".join(part for part in [*parts, *_below(page)] if part) + "\n"


def export(page: Page, folder: Path) -> list[Path]:
    """Write a page in every format that it has something for; returns the files."""
    return [path for form in FORMATS for path in form(page, folder / page.name)]


def write_csv(page: Page, path: Path) -> list[Path]:
    """One file per table of the page's data, the first at `path`, others beside it: `<stem>_<name>.csv`."""
    written = []
    for table in page.data or page.tables:
        name = f"{path.stem}_{table.name}{path.suffix}" if table.name else path.name
        files.write_text(path.with_name(name), as_csv(table.rows, table.columns))
        written.append(path.with_name(name))
    return written


def _csv(page: Page, stem: Path) -> list[Path]:
    return write_csv(page, stem.with_name(f"{stem.name}.csv"))


def _markdown(page: Page, stem: Path) -> list[Path]:
    path = stem.with_name(f"{stem.name}.md")
    files.write_text(path, markdown(page))
    return [path]


def _png(page: Page, stem: Path) -> list[Path]:
    return [
        figure.save(each.draw(), stem.with_name(f"{stem.name}_{each.name}.png" if each.name else f"{stem.name}.png"))
        for each in page.figures
    ]


def csv_of(page: Page) -> str:
    """All its numbers with full precision; several tables one after another."""
    return "\n".join(as_csv(table.rows, table.columns) for table in page.data or page.tables)


def html_of(page: Page) -> str:
    """Its tables for a page of one's own; every word of a cell is text, whatever it holds."""
    parts = [f"<h2>{escape(page.title)}</h2>", *([f"<p>{escape(page.settings)}</p>"] if page.settings else [])]
    parts += [as_html(each) for each in page.tables]
    parts += [f"<p>{escape(line)}</p>" for line in _below(page)]
    return "\n".join(parts)


def as_html(table: Table) -> str:
    """One table."""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = [[escape(shown(row.get(column))) for column in table.columns] for row in table.rows]
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


PRINTED: dict[str, Callable[[Page], str]] = {  # what `format=` may be
    "text": text,
    "md": lambda page: text(page, markdown=True),
    "latex": latex,
    "csv": csv_of,
    "html": html_of,
}
FORMATS: Iterable[Callable[[Page, Path], list[Path]]] = (_csv, _markdown, _png)  # page, path without suffix -> files


def _below(page: Page) -> list[str]:
    """The legend of empty cells, and the notes as a list."""
    return [part for part in (legend(page.tables), "\n".join(f"- {note}" for note in page.notes)) if part]


def _number(value: object) -> bool:
    """Whether a cell may stand in a column of numbers; blank ones may."""
    return value == "" or isinstance(value, int | float | None | Empty | Quantity)


def _exact(value: object) -> object:
    if value is None or isinstance(value, Empty):
        return ""
    return value.value if isinstance(value, Quantity) else value
