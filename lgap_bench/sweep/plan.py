"""`lgap-bench plan <the words of run, or tables>`: what they will cost, before they are measured."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from lgap_bench.cell.check import check, require_files
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.config import Cell
from lgap_bench.cell.form import check_overrides, with_home
from lgap_bench.cell.needs import missing
from lgap_bench.forecast.cost import Forecast, forecast, named, read, unnamed
from lgap_bench.forecast.foreseen import foreseen
from lgap_bench.forecast.tables import precision_of, speed
from lgap_bench.record import Record
from lgap_bench.report import write
from lgap_bench.runtime import forecasts
from lgap_bench.runtime.device import configure, find_device
from lgap_bench.runtime.errors import is_user_error
from lgap_bench.runtime.files import content_id
from lgap_bench.sweep.fetch import jobs
from lgap_bench.sweep.planned import duration, page

OWN = ("rates=", "slow=", "format=")  # words of this command alone


@dataclass(frozen=True)
class Refused:
    """A cell that cannot be forecast, and why."""

    cell: str
    reason: str


def main() -> None:
    """Print the plan. Exit code 1 if a cell could not be forecast."""
    words = with_home(sys.argv[1:])
    names = [word for word in words if "=" not in word and not word.startswith("-")]
    given = [word for word in words if "=" in word and not word.startswith(OWN)]
    own = dict(word.split("=", 1) for word in words if word.startswith(OWN))
    check_overrides(given)
    form = own.get("format", "text")
    if form not in write.PRINTED:
        raise ValueError(f"format={form} is not known: use one of {', '.join(write.PRINTED)}")
    if own.get("slow", "false") not in ("true", "false"):
        raise ValueError(f"slow={own['slow']} is neither true nor false: slow=true adds the rows that take hours")
    found = list(plans(list(jobs(names, given, own.get("slow") == "true")), own.get("rates")))
    print(write.PRINTED[form](page(found, " ".join([*names, *given]) or "one cell")))
    sys.exit(int(any(isinstance(each, Refused) for each in found)))


def plans(every: Sequence[list[str]], rates: str | None = None) -> Iterator[Forecast | Refused]:
    """The forecast of every cell, each kept for its record; of one that is recorded what it cost.

    `rates`: a table of another device, or None for this one.
    """
    met: set[str] = set()  # all shards of a cell are one
    made: dict[str, Forecast] = {}  # by record: rows that ask for the same one cost it once
    for number, words in enumerate(every):
        cell = resolved(words)
        if (name := content_id(cell.plain())) in met:
            continue
        met.add(name)
        try:
            check(cell)
            yield _planned(cell, f"{number + 1}/{len(every)}", rates, made)
        except Exception as error:
            if not is_user_error(error):
                raise
            yield Refused(" ".join(words), str(error))


def _planned(cell: Cell, place: str, rates: str | None, made: dict[str, Forecast]) -> Forecast:
    device, lacks = find_device(cell.device), missing(cell)
    known = unnamed(cell) if lacks else named(cell, device)
    record = Record(cell.outputs / "records" / known.id)
    if known.id and record.complete:
        return known.measured(record.run())
    if held := made.get(known.same) or (None if rates or not known.id else _kept(cell, known)):
        made[known.same] = held
        return replace(held, cell=known.cell, there=known.there)
    configure(cell.tf32, cell.threads or (1 if device.torch == "cpu" else None), device)
    began = time.monotonic()
    if rates is not None or lacks:
        found = foreseen(
            cell, known, None if rates is None else speed(rates, precision_of(cell.dtype, cell.tf32, cell.compile))
        )
    else:
        require_files(cell)
        found = forecast(cell, device)
        forecasts.keep(cell.outputs, found.id, asdict(found))
    made[known.same] = found
    print(
        f"{place} {found.cell}: {duration(found.seconds) or 'no rates'} (looked for {time.monotonic() - began:.0f} s)",
        file=sys.stderr,
        flush=True,
    )
    return found


def _kept(cell: Cell, known: Forecast) -> Forecast | None:
    """What was forecast of a record before; None, so that it is made anew, where nothing was or an earlier version did it."""
    with suppress(ValueError):
        if (held := forecasts.kept(cell.outputs, known.id)) is not None:
            return replace(read(held), same=known.same)
    return None
