"""Figures of docs/ that the package draws: from the kept rows where it can, from the records' pictures while they are gathered."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lgap_bench.cell.values import fraction
from lgap_bench.report import figure
from lgap_bench.report.bars import bars
from lgap_bench.report.page import Page
from lgap_bench.report.pages import curve, language, paper
from scripts.docs import blocks
from scripts.docs.kept import Kept, gathered

SEAL = "Description"  # the PNG's own word that names the rows it was drawn from


def pictured() -> Iterator[tuple[str, Path]]:
    """Name of the page and file of every figure that a block asks for."""
    for page in blocks.pages():
        for block in blocks.blocks(page.read_text()):
            if "png" in block.options and gathered(block.name):
                yield block.name, page.parent / block.options["png"]


def draw(kept: Kept) -> Any:
    """The figure of kept rows; None where it needs pictures, which are not kept."""
    table = paper.load(kept.item) if kept.item in paper.known() else {}
    rows = kept.page.tables[0].rows if kept.page.tables else []
    kinds = {"bars": partial(_bars, table, rows), "curve": partial(_curve, table, rows), "sweep": partial(language.draw, rows)}  # fmt: skip
    return next((drawn() for kind, drawn in kinds.items() if kind in table), None)


def save(drawn: Any, path: Path, kept: Kept) -> Path:
    """Write a figure that says which rows it is of."""
    return figure.save(drawn, path, {SEAL: kept.seal})


def draw_gathered(page: Page, kept: Kept) -> list[Path]:
    """Draw the figures of a page whose records are at hand, where a block asks for one."""
    wanted = [path for name, path in pictured() if name == page.name]
    return [save(page.figures[0].draw(), path, kept) for path in wanted if page.figures]


def sealed(path: Path) -> str:
    """Which rows a figure says that it was drawn from; empty where it does not say."""
    from PIL import Image

    with Image.open(path) as image:
        return str(image.info.get(SEAL, ""))


def _bars(table: Any, rows: Any) -> Any:
    return bars(rows, table["bars"])


def _curve(table: Any, rows: Any) -> Any:
    wanted = table["curve"]
    held = [{**row, "value": fraction(row["value"], wanted["key"])} for row in rows]
    return curve.draw(held, wanted["label"], wanted.get("paper_value"), wanted.get("value", "robust"))
