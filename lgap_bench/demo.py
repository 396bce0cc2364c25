"""`make demo`: LGAP against ever better attackers, in miniature, as one table, one picture and one page to look at."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from lgap_bench.record import Record
from lgap_bench.report.page import Figure, Page, Table, shown
from lgap_bench.run import app
from lgap_bench.runtime.files import writable
from lgap_bench.runtime.words import Parser
from lgap_bench.sweep import command

N = 64
TITLE = "LGAP against ever better attackers"
# The cells are experiments like any other: conf/experiment/demo/*.yaml. Here only their order and their names.
ROWS = {
    "undefended": "undefended",
    "control_blind": "downsample, blind",
    "control_bpda": "downsample, BPDA",
    "control_full": "downsample, full",
    "lgap_blind": "LGAP, blind",
    "lgap_bpda": "LGAP, BPDA",
    "lgap_joint": "LGAP, BPDA + caption",
    "lgap_full": "LGAP, exact gradient",
}
PICTURED = ("lgap_bpda", "lgap_full")


def main() -> None:
    """Run (or look up) the demo's cells; write demo/table.csv, grid.png and report.html below the outputs folder."""
    parser = Parser("demo", "LGAP against ever better attackers, in miniature.")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    outputs: Path = parser.given().outputs
    began = time.monotonic()

    from lgap_bench.report import figure
    from lgap_bench.report.browser.build import write_page
    from lgap_bench.report.write import text, write_csv

    writable(outputs, "--outputs")
    found = measured(outputs)
    folder, demo = outputs / "demo", page(found)
    (table,), (grid,) = demo.tables, demo.figures
    write_csv(demo, folder / "table.csv")
    print(text(demo))
    picture = figure.save(grid.draw(), folder / "grid.png")
    print("\n" + "\n".join(lesson({row["row"]: row for row in table.rows})))
    shown = write_page(list(found.values()), folder / "report.html", heading=TITLE)
    print(f"\n{folder / 'table.csv'}  {picture}  {shown}  {time.monotonic() - began:.1f} s")


def measured(outputs: Path) -> dict[str, Record]:
    """The demo's cells as one sweep on this machine's cores; exits with 1 if one of them failed, which the sweep has said."""
    longest_first = ",".join(f"demo/{name}" for name in reversed(ROWS))
    words = ["-m", f"experiment={longest_first}", f"n={N}", f"outputs={outputs}", "hydra/launcher=local"]
    with redirect_stdout(io.StringIO()):  # the table shows what each cell's screen says
        folder, code = command.sweep(words, app, "demo")
    if code:
        sys.exit(code)
    found = {}
    for job in folder.jobs():
        (experiment,) = (word for word in job.overrides if word.startswith("experiment="))
        found[experiment.removeprefix("experiment=demo/")] = Record(outputs / "records" / job.record)
    return found


def kept(found: Sequence[Record]) -> dict[str, Record]:
    """The demo's cells among records, by name; one that is missing is left out."""
    from lgap_bench.report.rows import requested_by

    asked = [each for each in found if (each.identity().get("n"), each.identity().get("seed")) == (N, 0)]
    own = {name: [each for each in asked if requested_by(each, f"demo/{name}", None)] for name in ROWS}
    return {name: held[0] for name, held in own.items() if held}


def page(found: Mapping[str, Record]) -> Page:
    """The demo's table and picture from its cells."""
    from lgap_bench.report.grid import grids
    from lgap_bench.report.pages.all import COLUMNS
    from lgap_bench.report.rows import interval, merge, settings_line

    rows = [merge([found[name]], title) for name, title in ROWS.items()]
    rows = [{**row, "interval": interval(row)} for row in rows]
    pictured = [(found[name], "") for name in PICTURED]
    grid = Figure(lambda: grids(pictured, found[PICTURED[0]].classes()))
    return Page("demo", TITLE, settings_line(rows), [Table(COLUMNS, rows)], figures=[grid])


def lesson(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the table shows, in two lines, from its numbers."""
    bpda, full = rows["LGAP, BPDA"], rows["LGAP, exact gradient"]
    blur, blind = rows["downsample, blind"], rows["LGAP, blind"]
    return [
        f"The purifier is no blur: against a blind attacker LGAP keeps {shown(blind['robust'])} %, downsampling {shown(blur['robust'])} %.",
        f"BPDA says {shown(bpda['robust'])} %, the exact gradient says {shown(full['robust'])} %, and {shown(full['any_of_k'])} % if "
        f"none of ten draws may fail (on clean images {full['natural_any_of_k']:.1f} %). ≤ is an upper bound: the report says why.",
    ]
