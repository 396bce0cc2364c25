"""What one pass costs here: a short calibration of every kind of work that a cell has, kept by device, weights and code.

outputs/rates/<id>.json   seconds, memory and network calls of each kind of pass; <id> is the hash of the parts and the machine
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.attack.problem import Parts
from lgap_bench.attack.stand_in import StandIn
from lgap_bench.attack.transfer import Transfer
from lgap_bench.cell.config import Cell
from lgap_bench.cell.identity import contract_identity
from lgap_bench.defense import Defense
from lgap_bench.forecast.clock import seconds_of
from lgap_bench.forecast.held import most_held
from lgap_bench.forecast.networks import calls_of
from lgap_bench.forecast.tally import Kind
from lgap_bench.noise import Noise, streams
from lgap_bench.runtime import peak
from lgap_bench.runtime.device import Device
from lgap_bench.runtime.files import content_id, write_json

QUICK = 0.3  # seconds: a pass that takes less is timed three times
MIB = 2**20


@dataclass(frozen=True)
class Rate:
    """One kind of pass.

    Attributes:
        call, row: seconds of a pass on r rows are call + row * r. On a CPU of one thread the processor's, which others on the
            machine do not change; else the clock's.
        mib: memory that a row needs beside the weights, at the moment when the pass needs most.
        networks: calls of each network for one row.
    """

    call: float
    row: float
    mib: float
    networks: Mapping[str, float]


Rates = dict[Kind, Rate]


def measured(parts: Parts, cell: Cell, kinds: Mapping[Kind, int], device: Device) -> Rates:
    """The rates of these kinds of work, each at about so many rows; those that were measured before are read.

    Raises ValueError for a pass that does not fit into memory: fewer rows would.
    """
    identity = {
        **contract_identity(cell, 1, device.kind, view=True),
        "threads": torch.get_num_threads(),
        "rows": cell.max_rows,
    }
    file = cell.outputs / "rates" / f"{content_id(identity)}.json"
    rates = _read(file)
    if missing := [kind for kind in kinds if kind not in rates]:
        rates |= {kind: _rate(parts, cell, kind, kinds[kind], device) for kind in missing}
        with suppress(OSError):  # what cannot be kept is measured again
            write_json(
                file,
                {
                    "identity": identity,
                    "rates": [{"part": p, "gradient": g, **asdict(rate)} for (p, g), rate in rates.items()],
                },
            )
    return rates


def _read(file: Path) -> Rates:
    try:
        rows = json.loads(file.read_text())["rates"]
        return {(row.pop("part"), row.pop("gradient")): Rate(**row) for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _rate(parts: Parts, cell: Cell, kind: Kind, rows: int, device: Device) -> Rate:
    """One kind of pass at two sizes: what every pass costs, and what a row does."""
    run, module = _pass(parts, cell, kind, device)
    most = max(2, min(rows, cell.max_rows))
    few = max(1, most // 8)
    try:
        run(1)  # what is looked at in the image is remembered, and counted as a kind of its own
        networks = calls_of(nn.ModuleDict({"defense": parts.defense, "other": module}), lambda: run(1), 1)
        small, large = _seconds(lambda: run(few), device), _seconds(lambda: run(most), device)
        mib = _needed(lambda: run(most), parts, kind[1], device) / most
    except torch.OutOfMemoryError:
        raise ValueError(
            f"a pass of {most} rows does not fit into memory here: lower max_rows, or prior.memory"
        ) from None
    row = max(large - small, 0.0) / (most - few)
    return Rate(max(small - row * few, 0.0), row if row else large / most, mib, networks)


def _seconds(run: Callable[[], object], device: Device) -> float:
    """The median of three passes where they are quick, else the second of two; the first is not counted."""
    run()
    taken = [seconds_of(run, device)]
    if taken[0] < QUICK:
        taken += [seconds_of(run, device) for _ in range(2)]
    return statistics.median(taken)


def _needed(run: Callable[[], object], parts: Parts, gradient: bool, device: Device) -> float:
    """MiB that a pass needs beyond what is there; where the system does not tell, what it keeps for its way back."""
    if not peak.tells(device):
        return most_held(run, parts.defense.parameters()) / MIB if gradient else 0.0
    peak.restart(device)
    before = peak.held(device)
    run()
    return max(peak.peak(device) - before, 0.0)


def _pass(parts: Parts, cell: Cell, kind: Kind, device: Device) -> tuple[Callable[[int], object], nn.Module]:
    """What runs one pass of so many rows, and the module whose networks it calls."""
    part, gradient = kind
    module, call = _called(parts, part)

    def run(rows: int) -> None:
        x, noise = _images(parts, cell, rows, device)
        with torch.set_grad_enabled(gradient):
            given = x.requires_grad_(gradient)
            out = call(given, noise)
            if gradient and isinstance(out, Tensor) and out.requires_grad:
                torch.autograd.grad(out.float().sum(), given)

    return run, module


def _called(parts: Parts, part: str) -> tuple[nn.Module, Callable[[Tensor, Noise], Any]]:
    """The module of one kind of work, and how it is called."""
    defense, view = parts.defense, parts.view
    purifier: Any = defense.purifier
    observed: dict[int, list[str] | None] = {}

    def purify(each: Defense) -> Callable[[Tensor, Noise], Tensor]:
        def call(x: Tensor, noise: Noise) -> Tensor:
            if len(x) not in observed:  # once and outside the count: looking is a kind of its own
                observed[len(x)] = defense.observe(x, noise)
            return each.purify(x, noise, observed[len(x)])

        return call

    def path(x: Tensor, noise: Noise) -> Tensor:
        return list(purifier.path(defense.as_model_input(x), noise, defense.observe(x, noise)))[-1]

    captions = [parts.dataset.caption_of(0)]
    if part == "path":
        return purifier, path
    if part == "purify":
        return purifier, purify(defense)
    if part.startswith("purify ("):
        other = view.differentiated if isinstance(view, StandIn) else Defense(purifier.detached(), defense.classifier)
        return other.purifier, purify(other)
    table: dict[str, tuple[Any, Callable[[Tensor, Noise], Any]]] = {
        "classify": (defense.classifier, defense.classify),
        "other": (
            getattr(view, "other", None),
            lambda x, noise: view.logits(x, noise) if isinstance(view, Transfer) else x,
        ),
        "caption": (purifier.captioner, lambda x, noise: purifier.captioner(x.detach(), noise)),
        "caption loss": (purifier.captioner, lambda x, noise: purifier.captioner.loss(x, captions * len(x))),
        "detect": (getattr(purifier, "detector", None), lambda x, noise: purifier.detector(x.detach(), noise)),
        "presence": (getattr(purifier, "detector", None), lambda x, noise: purifier.detector.presence(x)),
    }
    return table[part]


def _images(parts: Parts, cell: Cell, rows: int, device: Device) -> tuple[Tensor, Noise]:
    """Images of the data set, again and again, as the evaluation hands them to a defense; and noise that nobody meets."""
    data = parts.dataset
    few = min(rows, len(data))
    images, ids = data.images[:few], data.ids[:few].tolist()
    times = -(-rows // few)
    dtype = torch.float64 if cell.dtype == "float64" else torch.float32
    x = images.to(device=device.torch, dtype=dtype).repeat(times, 1, 1, 1)[:rows]
    return x, streams(cell.seed, (ids * times)[:rows])["select"].draws(1, 0, -11)
