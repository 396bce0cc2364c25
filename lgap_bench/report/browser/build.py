"""Records and measured items of the papers -> one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgap_bench import __version__
from lgap_bench.record import Record
from lgap_bench.report.browser import along, budget, captions
from lgap_bench.report.browser.budget import Budgets, budgets
from lgap_bench.report.browser.cells import Grid, Item, grid, item
from lgap_bench.report.browser.entries import entries, title
from lgap_bench.report.browser.ladder import Ladder, alone, draw, ladders
from lgap_bench.report.browser.pictures import albums
from lgap_bench.report.browser.svg import inline
from lgap_bench.report.page import Page, Table, legend
from lgap_bench.report.pages import all as all_records
from lgap_bench.report.pages import claims, forecasts, paper
from lgap_bench.report.rows import Merge, Merger
from lgap_bench.runtime import files

HERE = Path(__file__).parent
CLAIMS = ("claim", "verdict", "published", "same_attack", "lowest", "interval", "lowest_by", "on")
BUDGETS_DRAWN = 6  # figures of accuracy over the budget; their numbers stand in the table of all records
PATHS_DRAWN = 8  # records, the strongest attacker of every defense first
LADDERS_DRAWN = 12  # figures of ladders; a table of every one is shown


@dataclass(frozen=True)
class Claimed:
    """A paper's claims: `table` of those that were measured, `left` the others in words."""

    paper: str
    title: str
    source: str
    table: Grid | None
    left: Sequence[str]


@dataclass(frozen=True)
class Drawn:
    """A figure with what it shows, and its own address."""

    anchor: str
    title: str
    svg: Any


def write_page(
    found: Sequence[Record], path: Path, pages: Sequence[Page] = (), heading: str = "", merge: Merge | None = None
) -> Path:
    """Write the page of some records; returns its path.

    Args:
        found: finished records, those of `pages` among them.
        pages: items of papers to show beside the table of all records.
        heading: of the page.
        merge: the one that `pages` were made with, which need not be asked twice.
    Raises:
        ValueError: there is no record, a record is damaged, or the file cannot be written.
    """
    if not found:
        raise ValueError(f"{path}: there is no finished record to show: run a cell first, `lgap-bench run`")
    writable_file(path)
    text = rendered(found, pages, heading or "What holds", merge or Merger())
    try:
        files.write_text(path, text)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written ({files.one_line(error)}): name a file in a folder of yours"
        ) from None
    return path


def writable_file(path: Path) -> None:
    """Raises ValueError where a page cannot come, before it is made."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file in it, {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}, make it first")


def rendered(found: Sequence[Record], pages: Sequence[Page], heading: str, merge: Merge) -> str:
    """The page's text."""
    known = {record.folder.name for record in found}
    climbed = ladders(found, merge)
    everything = Page("records", "All records", tables=all_records.page(found, merge).tables)
    told, planned = captions.page(found), forecasts.page(found)
    ordered = [(record, title(record)) for record in _strongest_first(climbed, found)]
    shown, lost = albums(ordered)
    return _template().render(
        heading=heading,
        version=__version__,
        count=len(found),
        claimed=[claimed for name in paper.known() if (claimed := _claimed(name, found, known, merge))],
        lowest=_lowest(climbed, known),
        ladders=_ladders(climbed, known),
        bounds=legend([each.table for each in climbed]),
        items=[item(each, known) for each in [*pages, everything] if each.tables],
        figures=_figures(climbed, budgets(found, merge), along.paths(ordered), pages),
        albums=shown,
        albums_left=lost,
        captions=item(told, known) if told else None,
        planned=item(planned, known) if planned else None,
        entries=entries(found),
        style=(HERE / "style.css").read_text(),
        script=(HERE / "page.js").read_text(),
    )


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Captions, names and paths are anybody's: all that is not a figure of our own is escaped.
    kept = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    kept.filters["ticked"] = _ticked
    return kept.get_template("page.html")


def _ticked(words: str) -> Any:
    """A sentence whose `words in ticks` are code."""
    from markupsafe import Markup, escape

    parts = [escape(part) for part in words.split("`")]
    if len(parts) % 2 == 0:  # a tick that nothing closes
        return escape(words)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _claimed(name: str, found: Sequence[Record], known: set[str], merge: Merge) -> Claimed | None:
    """A paper's claims, None for another item; which of them were not measured is one list."""
    table = paper.load(name)
    if "claims" not in table:
        return None
    rows = claims.held(table, found, merge=merge)
    measured = [row for row in rows if row["lines"]]
    left = [row["claim"] for row in rows if not row["lines"]]
    held = grid(Table(CLAIMS, measured), known) if measured else None
    return Claimed(name.split("/")[0], table["title"], table["source"], held, left)


def _lowest(climbed: Sequence[Ladder], known: set[str]) -> Item:
    """Per defense the lowest number of all its attackers: what is left where no paper claims anything."""
    rows = []
    for each in climbed:
        if (line := each.lowest) is not None:
            worst = f"worst of {line['compared']}, per image" if "compared" in line else None
            said = worst or f"{line['attack']} (view {line['view']})"
            rows.append(
                {**line, "defense": each.title, "on": each.settings, "lowest": line["robust"], "lowest_by": said}
            )
    columns = ("defense", "verdict", "natural", "lowest", "interval", "lowest_by", "on")
    return item(Page("lowest", "The lowest number of every defense", tables=[Table(columns, rows)]), known)


def _ladders(climbed: Sequence[Ladder], known: set[str]) -> list[Grid]:
    """A table per defense that several attackers met, and one of all others."""
    several = [each.table for each in climbed if len(each.lines) > 1]
    single = [each for each in climbed if len(each.lines) == 1]
    return [grid(table, known) for table in [*several, *([alone(single)] if single else [])]]


def _figures(
    climbed: Sequence[Ladder], over: Sequence[Budgets], paths: Sequence[along.Along], pages: Sequence[Page]
) -> list[Drawn]:
    """The ladders' figures, accuracies over the budget, confidence along purifications, and the items' figures.

    One that would be too large is left to its file.
    """
    from markupsafe import Markup

    held = [(f"Attackers of {each.title}, {each.settings}", draw(each)) for each in climbed[:LADDERS_DRAWN]]
    held += [(f"Accuracy over the budget: {each.title}", budget.draw(each)) for each in over[:BUDGETS_DRAWN]]
    held += [(f"Confidence along the purification: {each.title}", along.draw(each)) for each in paths[:PATHS_DRAWN]]
    held += [
        (f"{page.title} {each.name}".strip(), each.draw()) for page in pages if page.tables for each in page.figures
    ]
    drawn = []
    for place, (words, made) in enumerate((words, made) for words, made in held if made is not None):
        svg = inline(made, f"f{place}")
        if svg is not None:
            drawn.append(Drawn(f"figure-{place}", words, Markup(svg)))  # matplotlib escapes the text in it
    return drawn


def _strongest_first(climbed: Sequence[Ladder], found: Sequence[Record]) -> list[Record]:
    """First a record of every defense under the attacker who left least, purifiers before bare classifiers, then the others."""
    by_name = {record.folder.name: record for record in found}
    lines = []
    for ladder in climbed:
        own = [line for line in ladder.lines if "compared" not in line]
        own.sort(key=lambda line: float(line.get("robust", 101.0)))
        lines += [(place, ladder.bare, line["records"].split()[0]) for place, line in enumerate(own)]
    return [by_name[name] for _, _, name in sorted(lines, key=lambda each: each[:2])]
