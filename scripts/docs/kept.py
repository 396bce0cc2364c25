"""A measured page of a report as one small JSON file: the rows of its tables, and when, at which commit and by what they were made.

docs/records/<page>.json. No samples and no images: intervals, verdicts, n, seeds and the ids of the records behind each row.
A file is sealed by its content, so that a number that was edited by hand is found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgap_bench.report.page import AtLeast, AtMost, Empty, Invalid, Page, Quantity, Table
from lgap_bench.runtime import files

FOLDER = Path(__file__).parents[2] / "docs" / "records"
DIGITS = 4  # decimals that are kept of a number
MARKS: dict[str, type[float]] = {"at_most": AtMost, "at_least": AtLeast, "invalid": Invalid}
ENDS = ("_low", "_high")  # of the numbers that a table's columns hold
FACTS = (  # kept of a row beside its columns
    "records", "interval", "verdict", "eps", "norm", "n", "seeds", "dataset", "experiment",
)  # fmt: skip
DASHED = "-"  # key of a row most of whose empty cells are blank: those that say `-`


@dataclass(frozen=True)
class Made:
    """When the last record behind a page was finished, at which commit, by which command."""

    date: str
    commit: str
    command: str

    def __str__(self) -> str:
        return f"*Measured {self.date} at commit {self.commit} by* `{self.command}`"


@dataclass(frozen=True)
class Kept:
    """A page of the item `item` of a paper, the ids of the records that it is of, and its seal."""

    item: str
    page: Page
    made: Made
    records: Sequence[str]
    seal: str


def write(item: str, page: Page, made: Made, records: Sequence[str], folder: Path = FOLDER) -> Path:
    """Keep a page; returns its file."""
    content = {
        "item": item,
        "title": page.title,
        "settings": page.settings,
        "notes": list(page.notes),
        "made": vars(made),
        "records": sorted(records),
        "tables": [_table(table) for table in page.tables],
    }
    path = folder / f"{page.name}.json"
    files.write_text(path, _text({**content, "seal": files.content_id(content)}))
    return path


def gathered(name: str, folder: Path = FOLDER) -> bool:
    """Whether there are records of a page."""
    return (folder / f"{name}.json").exists()


def read(name: str, folder: Path = FOLDER) -> Kept:
    """A page by its name. Raises ValueError in one line where there is none, or it was edited."""
    path = folder / f"{name}.json"
    try:
        content = json.loads(path.read_text())
        seal = content.pop("seal")
        if files.content_id(content) != seal:
            raise ValueError("it is not what was gathered")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: {files.one_line(error)}: python -m scripts.docs gather OUTPUTS") from None
    tables = [Table(each["columns"], [_row(row, each["columns"]) for row in each["rows"]], each["caption"], each["name"]) for each in content["tables"]]  # fmt: skip
    page = Page(name, content["title"], content["settings"], tables, notes=content["notes"])
    return Kept(content["item"], page, Made(**content["made"]), content["records"], seal)


def _table(table: Table) -> dict[str, Any]:
    keys = dict.fromkeys([*table.columns, *FACTS, *(f"{column}{end}" for column in table.columns for end in ENDS)])
    rows = [_whole(row, [*keys], table.columns) for row in table.rows]
    return {"caption": table.caption, "name": table.name, "columns": list(table.columns), "rows": rows}


def _whole(row: Mapping[str, Any], keys: Sequence[str], columns: Sequence[str]) -> dict[str, Any]:
    """A row without its empty cells, which are half of a paper's table."""
    packed = {key: _packed(row[key]) for key in keys if row.get(key) not in (None, "")}
    if any(row.get(column) == "" for column in columns):
        packed[DASHED] = [column for column in columns if row.get(column) is None]
    return packed


def _packed(value: Any) -> Any:
    """A cell as JSON has it: numbers that are no plain ones say what they are."""
    if isinstance(value, Empty):
        return {"empty": value.value}
    if isinstance(value, Quantity):
        return {"quantity": [value.value, value.unit, value.digits]}
    if isinstance(value, float):
        rounded = round(float(value), DIGITS)
        marks = [mark for mark, kind in MARKS.items() if isinstance(value, kind)]
        return {marks[0]: rounded} if marks else rounded
    return value


def _row(packed: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    dashed = packed.get(DASHED)
    blank = {} if dashed is None else {column: "" for column in columns if column not in dashed}
    return {**blank, **{key: _unpacked(value) for key, value in packed.items() if key != DASHED}}


def _unpacked(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    (mark, held), *_ = value.items()
    if mark == "empty":
        return Empty(held)
    return Quantity(*held) if mark == "quantity" else MARKS[mark](held)


def _text(content: Mapping[str, Any]) -> str:
    """A row per line, so that a change of one number is a change of one line."""
    tables = [_lines(each) for each in content["tables"]]
    head = {key: value for key, value in content.items() if key != "tables"}
    text = json.dumps(head, indent=1, sort_keys=True, ensure_ascii=False)
    return f'{text[:-2]},\n "tables": [\n{_joined(tables)}\n ]\n}}\n'


def _lines(table: Mapping[str, Any]) -> str:
    head = json.dumps({key: value for key, value in table.items() if key != "rows"}, ensure_ascii=False)
    rows = _joined([json.dumps(row, ensure_ascii=False) for row in table["rows"]])
    return f'{head[:-1]}, "rows": [\n{rows}\n]}}'


def _joined(lines: Sequence[str]) -> str:
    return ",\n".join(lines)
