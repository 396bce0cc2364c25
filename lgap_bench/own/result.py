"""What an evaluation of somebody's defense says: a table of attackers, the lowest number, and the verdict with its reasons."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgap_bench.record import Record
from lgap_bench.report.browser.build import write_page
from lgap_bench.report.page import shown
from lgap_bench.report.rows import merge
from lgap_bench.report.worst import worst_line
from lgap_bench.report.write import as_text

COLUMNS = ("attacker", "natural", "robust", "interval", "any_of_k", "majority_of_k", "verdict", "seconds")


@dataclass(frozen=True)
class Rung:
    """One attacker: its title and the words that choose it."""

    title: str
    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Rung:
        """`full attack.steps=100`: an attack preset, and words of its own."""
        name, *words = text.split()
        return cls(text, (f"attack={name}", *words))


@dataclass(frozen=True)
class Result:
    """The measured rungs, in their order; print it, or let a notebook show it.

    Attributes:
        classifier, purifier: the names in the records; `none` for a defense without a purifier.
        measured: every attacker with its record.
        notes: what no record says.
    """

    classifier: str
    purifier: str
    measured: tuple[tuple[Rung, Record], ...]
    notes: tuple[str, ...]

    @property
    def records(self) -> list[Record]:
        """The records, in the order of the attackers."""
        return [record for _, record in self.measured]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One mapping per attacker, and with several of them one for the worst attack per image; accuracies in percent."""
        rows = [_row(rung.title, merge([record])) for rung, record in self.measured]
        return rows if len(rows) == 1 else [*rows, _row("each image's worst", self._worst)]

    @property
    def natural(self) -> float:
        """Accuracy on clean images, percent."""
        return float(self._worst["natural"])

    @property
    def robust(self) -> float:
        """Accuracy under each image's worst attack, percent; NaN where every attack failed on every image."""
        return float(self._worst.get("robust", float("nan")))

    @property
    def verdict(self) -> str:
        """sound, upper bound or invalid: of the lowest number; parts that show no gradient leave none above an upper bound."""
        hidden = bool(self.notes) and self.robust > 0
        found = str(self._worst["verdict"])
        return "upper bound" if hidden and found == "sound" else found

    @property
    def reasons(self) -> list[str]:
        """Why it is not sound; empty where it is."""
        said = next(each.verdict()[1] for each in self._ascending if each.verdict()[0] == self._worst["verdict"])
        return [] if self.verdict == "sound" else [*said, *self.notes]

    def report(self, path: str | Path) -> Path:
        """Write a page for a browser with attackers, pictures and records in one file; returns its path.

        Raises ValueError if the file cannot be written.
        """
        return write_page(self.records, Path(path), heading=self._title)

    def __str__(self) -> str:
        """A table, the verdict, and where the records lie."""
        lines = [self._title, "", as_text(self.rows, COLUMNS), "", f"verdict: {self.verdict}"]
        lines += [f"  - {reason}" for reason in self.reasons]
        return "\n".join([*lines, *(f"record: {record.folder}" for record in self.records)])

    def _repr_html_(self) -> str:
        """The same with pictures, for a notebook. Names and reasons are text, whatever they hold."""
        cells = [[shown(row.get(column)) for column in COLUMNS] for row in self.rows]
        head = "".join(f"<th>{column}</th>" for column in COLUMNS)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
        reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in self.reasons)
        picture = base64.b64encode((self._ascending[0].folder / "grid.png").read_bytes()).decode()
        return (
            f"<p>{html.escape(self._title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>verdict: <b>{self.verdict}</b></p><ul>{reasons}</ul>"
            f'<img alt="clean and attacked images with predictions" src="data:image/png;base64,{picture}">'
        )

    @property
    def _ascending(self) -> list[Record]:
        return sorted(self.records, key=lambda record: record.summary().get("robust", {}).get("mean", float("inf")))

    @property
    def _worst(self) -> dict[str, Any]:
        return worst_line([self.records], len(self.records))

    @property
    def _title(self) -> str:
        row = merge(self.records[:1])
        defense = self.classifier if self.purifier == "none" else f"{self.purifier} + {self.classifier}"
        return f"{defense} on {row['n']} images, {row['norm']} {row['eps']}"


def _row(title: str, line: dict[str, Any]) -> dict[str, Any]:
    interval = f"{line['robust_low']:.1f}-{line['robust_high']:.1f}" if "robust" in line else None
    return {**line, "attacker": title, "interval": interval}
