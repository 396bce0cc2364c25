"""Conditioned denoising, table 1: classes, images and objects per image of the three subsets, beside the published numbers.

    python -m scripts.conditioned_denoising.table1 [dataset=coco] [data=data] [outputs=outputs] [any key of a data set]

From annotations alone: COCO's images need not be there. `sha256` is that of the images' ids, to be written into
conf/subset/coco/. The table lies in <outputs>/figures/conditioned_denoising_table1_<dataset>.csv and .md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lgap_bench.cell.check import check_subset
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.config import Cell
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.dataset.coco_json import instances
from lgap_bench.dataset.statistics import Statistics, statistics
from lgap_bench.report import write
from lgap_bench.report.page import Page, Table
from lgap_bench.report.pages import paper
from lgap_bench.runtime.errors import one_line_errors

# A data set is composed in a cell; the statistics ask nothing of its other parts, and those of the miniature need no files.
OTHERS = [f"{part}=digits/{name}" for part, name in (("classifier", "standard"), ("captioner", "blip"),
                                                     ("prior", "latent"), ("threat", "linf"))]  # fmt: skip
OWN = {"dataset": "coco", "outputs": "outputs"}


def main() -> None:
    """Compute, print and write the table."""
    strange = [text for text in sys.argv[1:] if "=" not in text]
    if strange:
        raise ValueError(f"{strange[0]} is no key=value: write e.g. dataset=scenes outputs=outputs")
    given = dict(text.split("=", 1) for text in sys.argv[1:])
    own = {key: given.pop(key, value) for key, value in OWN.items()}
    page = made(own["dataset"], [f"{key}={value}" for key, value in given.items()])
    files = write.export(page, Path(own["outputs"]) / "figures")
    print(write.text(page, markdown=True))
    print(*files)


def made(dataset: str, overrides: list[str]) -> Page:
    """The table of one data set, a row per subset, and beside it what does not occur."""
    table = paper.load("conditioned_denoising/1")
    cells = {row["row"]: composed(dataset, row["subset"], overrides) for row in table["rows"]}
    found = {name: held(cell) for name, cell in cells.items()}
    rows = [_row(row, found[row["row"]]) for row in table["rows"]]
    notes = [f"{name}: {_absent(each)}" for name, each in found.items()]
    notes += _left_out(next(iter(cells.values())))
    title = f"{table['title']}, here of dataset={dataset}"
    return Page(
        f"conditioned_denoising_table1_{dataset}",
        title,
        tables=[Table(list(rows[0]), rows)],
        notes=[*table["notes"], *notes],
    )


def composed(dataset: str, subset: str, overrides: list[str]) -> Cell:
    """A cell with one subset of a data set."""
    cell = resolved([f"dataset={dataset}", f"subset={dataset}/{subset}", *OTHERS, *overrides])
    check_subset(cell)
    return cell


def held(cell: Cell) -> Statistics:
    """What a cell's images hold."""
    unread = {"look": False} if cell.names.dataset == "coco" else {}  # COCO's image files are not asked for
    return statistics(instantiate(cell.dataset, **unread), cell.n)


def _left_out(cell: Cell) -> list[str]:
    """What of COCO's annotations is in no split."""
    if cell.names.dataset != "coco":
        return []
    counted = instances(cell.dataset["instances"]["file"]).left_out
    return ["not counted as objects or images: " + ", ".join(f"{count} {what}" for what, count in counted.items())]


def _row(row: dict[str, Any], found: Statistics) -> dict[str, Any]:
    ours = {"classes": found.classes, "images": found.images, "objects per image": f"{found.objects_per_image:.2f}"}
    beside: dict[str, Any] = {"row": row["row"]}
    for column, value in row["published"].items():
        beside |= {column: ours[column], f"published {column}": value}
    return {**beside, "classes per image": f"{found.classes_per_image:.2f}", "sha256": found.sha256}


def _absent(found: Statistics) -> str:
    if not found.absent:
        return "every class occurs"
    few = ", ".join(found.absent[:10]) + (", ..." if len(found.absent) > 10 else "")
    return f"{len(found.absent)} classes do not occur: {few}"


if __name__ == "__main__":
    one_line_errors(main)
