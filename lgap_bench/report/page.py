"""What a report shows, before it is text, Markdown, CSV or a picture: pages of tables, figures and notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

Rows = Sequence[Mapping[str, Any]]  # a row's cells by column; what a row lacks, and None, is "no such value"


class Unmeasured(ValueError):
    """An item of a paper without any record here; what measures it stands in the sentence."""


class Empty(Enum):
    """Why a cell has no number; None in a row means that there is no such value at all."""

    CITED = "cited"  # published only: nothing here could measure it
    NOT_RUN = "not run"  # the row's `to_run`, or the page's note, says what measures it
    PARTIAL = "partial"  # begun: a shard or some chunks are missing
    FAILED = "failed"  # measured, and the attack failed on every sample


class AtMost(float):
    """A number that robustness is at most: `≤ 72.0`."""


class AtLeast(float):
    """A number that an attack's success is at least: `≥ 64.0`."""


class Invalid(float):
    """A number whose measurement failed: shown as `invalid`, kept for programs."""


def judged(value: float, verdict: str) -> float:
    """A robust accuracy as its record's verdict lets it be read."""
    kind: type[float] = {"upper bound": AtMost, "invalid": Invalid}.get(verdict, float)
    return kind(value)


NO_VALUE = "-"  # e.g. the paper's number of a row that is ours
LEGEND = {
    NO_VALUE: "no such value",
    Empty.CITED.value: "published only",
    Empty.NOT_RUN.value: "no record of it here",
    Empty.PARTIAL.value: "begun, some of its chunks are missing",
    Empty.FAILED.value: "the attack failed on every sample",
    "invalid": "the measurement itself failed, the record says why",
}


@dataclass(frozen=True)
class Quantity:
    """A number with its unit, `3.894 s`, in as many digits as were published."""

    value: float
    unit: str
    digits: int = 2

    def __str__(self) -> str:
        return f"{self.value:.{self.digits}f} {self.unit}"


@dataclass(frozen=True)
class Table:
    """Columns and rows.

    Attributes:
        columns: keys of the rows, in the order in which they are shown.
        rows: cells are text, numbers, Quantity, Empty or None.
        caption: the line above it; empty for none.
        name: what its own CSV file is called beside the page's other ones; empty for the first.
    """

    columns: Sequence[str]
    rows: Rows
    caption: str = ""
    name: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture: `draw` makes the matplotlib figure when it is written; `name` tells it from the page's other ones."""

    draw: Callable[[], Any]
    name: str = ""


@dataclass(frozen=True)
class Page:
    """One item of a report.

    Attributes:
        name: of its files, without a suffix: `lgap-1-digits`.
        title: what it shows.
        settings: on what it was measured, as `rows.settings` words it: data set, norm, eps, n, seeds.
        tables: what is read.
        data: what is exported as CSV, with full precision; the tables themselves where empty.
        figures, notes: below the tables.
        measured: whether any of it is: what is published alone is shown but not exported.
    """

    name: str
    title: str
    settings: str = ""
    tables: Sequence[Table] = ()
    data: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    measured: bool = True


def shown(value: object) -> str:
    """A cell as it is read: numbers with one digit, `-` where there is no such value."""
    if value is None:
        return NO_VALUE
    if isinstance(value, Empty):
        return value.value
    if isinstance(value, AtMost):
        return f"≤ {value:.1f}"
    if isinstance(value, AtLeast):
        return f"≥ {value:.1f}"
    if isinstance(value, Invalid):
        return "invalid"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def legend(tables: Sequence[Table]) -> str:
    """What the words in cells without a number mean, of those that occur."""
    met = {shown(row.get(column)) for table in tables for row in table.rows for column in table.columns}
    words = [f"`{word}` {meaning}" for word, meaning in LEGEND.items() if word in met]
    bounds = ["`≤` an upper bound: a stronger attack exists"] if any("≤" in word for word in met) else []
    bounds += ["`≥` a lower bound, for the same reason"] if any("≥" in word for word in met) else []
    return "; ".join([*bounds, *words])
