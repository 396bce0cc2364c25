"""A paper's tables as one sweep: conf/table/ says which experiments its rows need, and over what its figures go.

A table's YAML may add `grids`, lists of words as `lgap-bench run -m` takes them, per scale: `miniature` for a data set that
is given (`dataset=digits`), `paper` without one. `alone: true` is a table that is measured only where it is named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lgap_bench.cell.form import check_overrides, with_home
from lgap_bench.report.command import print_items
from lgap_bench.report.pages import paper
from lgap_bench.report.rows import Merger
from lgap_bench.sweep import command

SLOW = "/slow/"  # experiments that take hours; their folder is called so
SLOW_N = 16  # images of each of them in miniature
Grid = list[str]  # words of which every combination is a cell


def main(app: Callable[[], object]) -> None:
    """`lgap-bench tables lgap [coup/1 ...] [slow=true] [words of run]`: measure what the tables need, and print them.

    Exit code 1 if a cell failed; the tables are printed all the same.
    """
    words = with_home(sys.argv[1:])
    slow = [word for word in words if word.startswith("slow=")][-1:] or ["slow=false"]
    if slow[0] not in ("slow=true", "slow=false"):
        raise ValueError(f"{slow[0]} is neither true nor false: slow=true adds the rows that take hours")
    names = items([word for word in words if "=" not in word and not word.startswith("-")])
    given = [word for word in words if "=" in word and not word.startswith("slow=")]
    dataset = next((word.removeprefix("dataset=") for word in given if word.startswith("dataset=")), None)
    check_overrides(given)
    found = grids(names, dataset is not None, slow[0] == "slow=true")
    label = "-".join(names) if len(names) < 3 else names[0].split("/")[0]
    _, code = command.sweep(["-m", *given, as_override(found)], app, label, names)
    shared = Merger()
    for name in names if "dry=true" not in given else []:
        try:
            print_items([name], command.outputs_of(given), dataset, merge=shared)
        except ValueError as error:  # a figure without a record: the sweep has said why there is none
            print(f"lgap-bench: {error}", file=sys.stderr)
    sys.exit(code)


def items(names: Sequence[str]) -> list[str]:
    """The tables that are meant: those named, or of a paper that is named all that are not `alone`.

    Raises ValueError for a name that is neither.
    """
    known = paper.known()
    papers = sorted({name.split("/")[0] for name in known})
    found = []
    for name in names:
        own = [each for each in known if each.split("/")[0] == name and not paper.load(each).get("alone")]
        if not own and name not in known:
            raise ValueError(f"{name} is no paper and no table: use one of {', '.join([*papers, *known])}")
        found += own or [name]
    if not found:
        raise ValueError(f"no table is named: write a paper ({', '.join(papers)}) or a table (lgap/1)")
    return list(dict.fromkeys(found))


def grids(names: Sequence[str], miniature: bool, slow: bool) -> list[Grid]:
    """What has to be measured for these tables: no experiment twice. Raises ValueError where there is nothing to measure."""
    tables = [paper.load(name) for name in names]
    named = {each for table in tables for each in (*paper.experiments(table), *table.get("pictures", ()))}
    large = {row["experiment"] for table in tables for row in table["rows"] if row.get("miniature") is False}
    experiments = sorted(named - large if miniature else named)
    quick = [each for each in experiments if SLOW not in each]
    late = [each for each in experiments if SLOW in each] if slow else []
    found: list[Grid] = [["experiment=" + ",".join(quick)]] if quick else []
    for table in tables:
        found += _own(table, miniature, slow)
    if late:  # last: what is quick is there before
        found.append(["experiment=" + ",".join(late), *([f"n={SLOW_N}"] if miniature else [])])
    if not found:
        raise ValueError(
            f"{', '.join(names)}: nothing to measure here, its rows are slow (slow=true) or made by a script"
        )
    return found


def _own(table: Mapping[str, Any], miniature: bool, slow: bool) -> list[Grid]:
    held: list[Grid] = (table.get("grids") or {}).get("miniature" if miniature else "paper", [])
    return [list(grid) for grid in held if slow or not any(SLOW in word for word in grid)]


def as_override(held: Sequence[Grid]) -> str:
    """The grids as the one word that hands them to Hydra's sweeper."""
    lists = ",".join("[" + ",".join(f"'{word}'" for word in grid) + "]" for grid in held)
    return f"hydra.sweeper.grids=[{lists}]"
