"""`lgap-bench run`, with one line per chunk that is computed appended to a file: `python tests/shared_cell.py <file> <words>`."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from lgap_bench import run
from lgap_bench.evaluation import loop
from lgap_bench.runtime.errors import one_line_errors


def watched(file: str, slow: float) -> None:
    """Chunks say when they begin, and take a while longer than they would."""
    chunk = loop.one_chunk

    def told(parts: Any, cell: Any, rows: slice, *more: Any) -> Any:
        with open(file, "a") as stream:  # a short line is appended whole
            stream.write(f"{os.getpid()} {rows.start // cell.chunk}\n")
        time.sleep(slow)
        return chunk(parts, cell, rows, *more)

    loop.one_chunk = told


if __name__ == "__main__":
    _, file, slow, *words = sys.argv
    watched(file, float(slow))
    sys.argv = ["run", *words]
    one_line_errors(run.main)
