"""The forecast of a cell whose models are not here, or for a device that is not: operations of its networks over a table's rates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from hydra.errors import InstantiationException

from lgap_bench.cell.about import about
from lgap_bench.cell.config import Cell
from lgap_bench.forecast.asked import asked_per_image, kinds_of, networks_per_image
from lgap_bench.forecast.cost import FEW, TRAINED, Forecast
from lgap_bench.forecast.count import chunks, grown
from lgap_bench.forecast.hollow import Cost, cost, hollow
from lgap_bench.forecast.tables import Speed
from lgap_bench.forecast.tally import Kind, Work
from lgap_bench.forecast.training import outlined_stages, training_kinds, trainings
from lgap_bench.runtime.code import release
from lgap_bench.runtime.files import content_id, write_json


def foreseen(cell: Cell, known: Forecast, speed: Speed | None) -> Forecast:
    """`known` with what the cell will cost where no image leaves the attack early; without a table no time, operations alone.

    Raises ValueError for a part whose architecture is not known beforehand, or that looks at numbers which are not there.
    """
    try:
        return _foreseen(cell, known, speed)
    except (RuntimeError, NotImplementedError, InstantiationException) as error:
        cause = " ".join(str(error).split())[-200:]
        raise ValueError(
            f"purifier={cell.names.purifier}: what it asks of its networks cannot be counted without their numbers ({cause}): fetch its models, then plan"
        ) from error


def _foreseen(cell: Cell, known: Forecast, speed: Speed | None) -> Forecast:
    parts = hollow(cell)
    size = tuple(about(cell.dataset, "shape"))
    counted = chunks(parts, cell)
    whole = grown(counted, cell, cell.n)
    kinds = kinds_of(whole, cell)
    stages = outlined_stages(cell)
    more = dict.fromkeys(training_kinds(parts.defense.purifier), TRAINED) if stages and speed else {}
    costs = {kind: _cost(parts, cell, kind, size, rows) for kind, rows in {**more, **kinds}.items()}
    gradients, passes = asked_per_image(whole, cell)
    seconds = _seconds(whole, costs, speed)
    weights = sum(each.numel() * each.element_size() for each in parts.defense.parameters()) / 2**20
    halved = 0.5 if cell.dtype in ("bfloat16", "float16") else 1.0
    return replace(
        known,
        seconds=seconds,
        unbroken=seconds,
        few_seconds=None if cell.n <= FEW else _seconds(grown(counted, cell, FEW), costs, speed),
        gradients=gradients,
        passes=passes,
        networks=networks_per_image(whole, {kind: each.networks for kind, each in costs.items()}, cell),
        pflop=sum(sum(costs[kind].gflop.values()) * rows for kind, (_, rows) in whole.items()) / 1e6,
        memory_mib=halved * (weights + max(costs[kind].mib * rows for kind, rows in kinds.items())),
        trained=trainings(
            cell, stages, {kind: speed.seconds(costs[kind].gflop, kind[1]) for kind in more} if speed else {}
        ),
        rates=speed.name if speed else "none",
    )


def _seconds(whole: Work, costs: Mapping[Kind, Cost], speed: Speed | None) -> float | None:
    if speed is None:
        return None
    return sum(rows * speed.seconds(costs[kind].gflop, kind[1]) for kind, (_, rows) in whole.items())


def _cost(parts: Any, cell: Cell, kind: Kind, size: tuple[int, ...], rows: int) -> Cost:
    """Kept, since a pass of many steps takes a while even without numbers, and the rows of a table share their defense."""
    view = cell.view if "(" in kind[0] or kind[0] == "other" else None
    asked = {
        "purifier": cell.purifier, "classifier": cell.classifier, "view": view, "kind": kind, "size": size, "rows": rows,
        "release": release(),
    }  # fmt: skip
    file = cell.outputs / "rates" / f"hollow-{content_id(asked)}.json"
    with suppress(OSError, ValueError, TypeError):
        return Cost(**json.loads(file.read_text()))
    found = cost(parts, kind, size, rows)
    with suppress(OSError):
        write_json(file, {**asdict(found), "gflop": dict(Counter(found.gflop))})
    return found
