"""Tables of a report as a browser's page shows them: cells with what they are sorted by, rows with links to their records."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lgap_bench.report.page import Empty, Page, Quantity, Table, legend, shown


@dataclass(frozen=True)
class Cell:
    """Text, and the number that it is sorted by; None sorts by its text."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Line:
    """A row's cells, and the ids of the records behind it that the page has entries of."""

    cells: Sequence[Cell]
    records: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """Rows under one heading inside a table; sorting keeps them together."""

    title: str
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Grid:
    """A table: `numeric` says which columns stand to the right; `linked` whether any row has a record."""

    caption: str
    columns: Sequence[str]
    numeric: Sequence[bool]
    sections: Sequence[Section]

    @property
    def linked(self) -> bool:
        """Whether a column of records is worth showing."""
        return any(line.records for section in self.sections for line in section.lines)


@dataclass(frozen=True)
class Item:
    """A page of a report, `records` those behind tables whose own rows do not say them."""

    anchor: str
    title: str
    settings: str
    grids: Sequence[Grid]
    below: Sequence[str]
    records: Sequence[str] = ()


def item(page: Page, known: Collection[str]) -> Item:
    """A page's tables; only records in `known` are linked."""
    grids = [grid(table, known) for table in page.tables]
    rest = [] if any(each.linked for each in grids) else behind(page, known)
    words = legend(page.tables)
    return Item(page.name, page.title, page.settings, grids, [*([words] if words else []), *page.notes], rest)


def behind(page: Page, known: Collection[str]) -> list[str]:
    """The records behind a page, by its tables and its data."""
    rows = [row for table in [*page.tables, *page.data] for row in table.rows]
    return list(dict.fromkeys(name for row in rows for name in ids(row, known)))


def ids(row: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Which records a row is made of."""
    return [name for name in str(row.get("records") or "").split() if name in known]


def grid(table: Table, known: Collection[str]) -> Grid:
    """A table; a row that is nothing but `[title]` begins a section, as in the papers' tables."""
    sections = [Section("")]
    for row in table.rows:
        cells = [_cell(row.get(column)) for column in table.columns]
        first = cells[0].text
        if first.startswith("[") and first.endswith("]") and not any(cell.text.strip("-") for cell in cells[1:]):
            sections.append(Section(first[1:-1]))
        else:
            sections[-1].lines.append(Line(cells, ids(row, known)))
    filled = [section for section in sections if section.lines or section.title]
    lines = [line for section in filled for line in section.lines]
    numeric = [
        any(line.cells[i].number is not None for line in lines)
        and all(line.cells[i].number is not None or line.cells[i].text in _BLANK for line in lines)
        for i in range(len(table.columns))
    ]
    return Grid(table.caption, [column.replace("_", " ") for column in table.columns], numeric, filled)


_BLANK = ("", "-", *(each.value for each in Empty))


def _cell(value: object) -> Cell:
    return Cell(shown(value), _number(value))


def _number(value: object) -> float | None:
    """What a cell is sorted by: `≤ 72.0`, `50.0 (42.1-57.9)` and `71.68` by the number that they begin with."""
    if isinstance(value, bool) or value is None or isinstance(value, Empty):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Quantity):
        return value.value
    words = str(value).lstrip("≤≥ +").split()
    try:
        return float(words[0]) if words and len(words) < 6 else None
    except ValueError:
        return None
