"""`make demo`: LGAP against ever better attackers, in miniature, as one table and one picture."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from lgap_bench.record import Record
from lgap_bench.report.page import Page, Table, shown
from lgap_bench.runtime.files import writable

N = 64
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
    """Run (or look up) the demo's cells; write demo/table.csv and demo/grid.png below the outputs folder."""
    parser = argparse.ArgumentParser(description="LGAP against ever better attackers, in miniature.")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    outputs: Path = parser.parse_args().outputs
    began = time.monotonic()

    from lgap_bench.report.grid import draw_grids
    from lgap_bench.report.pages.all import COLUMNS
    from lgap_bench.report.rows import merge
    from lgap_bench.report.write import text, write_csv

    writable(outputs, "--outputs")
    found: dict[str, Record] = {}
    # One process and one thread a cell: on small networks two processes do twice as much as two threads.
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 4), multiprocessing.get_context("spawn")) as pool:
        cells = {pool.submit(measure, name, outputs): name for name in reversed(ROWS)}  # the longest first
        for cell in as_completed(cells):
            found[cells[cell]] = cell.result()
            print(f"[{time.monotonic() - began:5.1f} s] {ROWS[cells[cell]]}: done", file=sys.stderr, flush=True)

    rows = [merge([found[name]], title) for name, title in ROWS.items()]
    folder = outputs / "demo"
    page = Page("table", "", tables=[Table(COLUMNS, rows)])
    write_csv(page, folder / "table.csv")
    print(text(page))
    picture = draw_grids([(found[name], "") for name in PICTURED], found[PICTURED[0]].classes(), folder / "grid.png")
    print("\n" + "\n".join(lesson({row["row"]: row for row in rows})))
    print(f"\n{folder / 'table.csv'}  {picture}  {time.monotonic() - began:.1f} s")


def measure(name: str, outputs: Path) -> Record:
    """One cell of the demo in a process of its own."""
    from lgap_bench.cell.compose import composed
    from lgap_bench.measure import run_cell
    from lgap_bench.runtime.errors import is_user_error, sentence

    overrides = [f"experiment=demo/{name}", f"n={N}", f"outputs={outputs}", "threads=1"]
    cfg = composed(overrides)
    try:
        return run_cell(cfg, cfg.hydra.runtime.choices, overrides)
    except Exception as error:
        if is_user_error(error):  # a process hands the message over, not the cause that the sentence is made from
            raise ValueError(sentence(error).removeprefix("lgap-bench: ")) from None
        raise


def lesson(rows: dict[str, dict[str, float]]) -> list[str]:
    """What the table shows, in two lines, from its numbers."""
    bpda, full = rows["LGAP, BPDA"], rows["LGAP, exact gradient"]
    blur, blind = rows["downsample, blind"], rows["LGAP, blind"]
    return [
        f"The purifier is no blur: against a blind attacker LGAP keeps {shown(blind['robust'])} %, downsampling {shown(blur['robust'])} %.",
        f"BPDA says {shown(bpda['robust'])} %, the exact gradient says {shown(full['robust'])} %, and {shown(full['any_of_k'])} % if "
        f"none of ten draws may fail (on clean images {full['natural_any_of_k']:.1f} %). ≤ is an upper bound: the report says why.",
    ]
