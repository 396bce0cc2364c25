"""A cell's forecast: what it asks of its parts, times what each costs here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from lgap_bench.cell.config import Cell
from lgap_bench.cell.identity import identity, record_id
from lgap_bench.forecast.asked import asked_per_image, kinds_of, networks_per_image
from lgap_bench.forecast.tally import Work
from lgap_bench.forecast.training import Training
from lgap_bench.record import Record
from lgap_bench.runtime import peak
from lgap_bench.runtime.device import CPU, Device
from lgap_bench.runtime.files import content_id, write_json

PILOT, TENTH = 8, 10  # images of a pilot at most, and the part of the cell's that they are at most
LONGEST = 60.0  # seconds that a pilot may take, by the forecast
TRAINED = 32  # rows in a pass of a training
FEW = 512  # images: what a cell would cost with so many


@dataclass(frozen=True)
class Forecast:
    """What one cell will cost.

    Attributes:
        id: of its record; empty where models that it is made of are not here.
        cell: its experiment, or what it is in words.
        same: alike for cells that make one record, whatever they are called: its id, or of a cell without one its settings' hash.
        images, chunks, there: how many, and how many chunks a record has already.
        seconds: of all its chunks, on one device. `unbroken`: if no image left the attack early.
        few_seconds: the same for 512 images, where there are more.
        gradients, passes: rows per image through the defense with a gradient and without, at most.
        networks: calls of each network per image, at most.
        pflop: operations of the networks; None where they were not counted.
        memory_mib: at the pass that needs most; of a CPU with the process around it.
        disk_mib: of the record.
        rates: where the seconds come from.
        trained: what has to be trained before it.
        pilot: images that were attacked to see what one does cost, as many leave early; 0 where even one takes too long.
    """

    id: str
    cell: str
    images: int
    chunks: int
    there: int
    seconds: float | None
    unbroken: float | None
    few_seconds: float | None
    gradients: float
    passes: float
    networks: Mapping[str, float] = field(default_factory=dict)
    pflop: float | None = None
    memory_mib: float | None = None
    disk_mib: float = 0.0
    trained: Sequence[Training] = ()
    rates: str = "measured here"
    pilot: int = 0
    same: str = ""

    def measured(self, run: Mapping[str, Any]) -> Forecast:
        """Of a record that is there: what it did cost, by its run.json."""
        worked = run.get("processor_seconds") or run.get("seconds")
        return replace(self, seconds=worked, memory_mib=run.get("peak_memory_mib"), rates="its record")

    @property
    def left(self) -> float | None:
        """Seconds of the chunks that are not there yet."""
        return None if self.seconds is None else self.seconds * (1 - self.there / self.chunks)


def read(held: Mapping[str, Any]) -> Forecast:
    """A forecast that was kept. Raises ValueError for one of another form."""
    try:
        return Forecast(**{**held, "trained": [Training(**each) for each in held.get("trained", ())]})
    except TypeError as error:
        raise ValueError(
            f"a forecast below outputs/forecasts is of another form ({error}): delete that folder"
        ) from None


def forecast(cell: Cell, device: Device) -> Forecast:
    """Build the cell's parts, count its work, measure what each kind of pass costs here, attack a few images.

    Nothing is trained: an untrained classifier costs the same. Raises ValueError for what the cell itself would raise.
    """
    from lgap_bench.forecast.count import chunks, grown
    from lgap_bench.forecast.parts import untrained
    from lgap_bench.forecast.rates import measured
    from lgap_bench.forecast.training import left_to_train, training_kinds, trainings

    parts = untrained(cell, device)
    peak.let_go()  # of cells before this one
    process = peak.held(CPU)
    counted = chunks(parts, cell)
    whole = grown(counted, cell, cell.n)
    kinds = kinds_of(whole, cell)
    stages = left_to_train(cell, device)
    more = dict.fromkeys(training_kinds(parts.defense.purifier), TRAINED) if stages else {}
    rates = measured(parts, cell, {**more, **kinds}, device)

    def seconds(of: Work) -> float:
        return sum(calls * rates[kind].call + rows * rates[kind].row for kind, (calls, rows) in of.items())

    factor, images = _tried(cell, device, parts, lambda images: seconds(grown(counted, cell, images)))
    gradients, passes = asked_per_image(whole, cell)
    return replace(
        named(cell, device),
        seconds=factor * seconds(whole),
        unbroken=seconds(whole),
        few_seconds=None if cell.n <= FEW else factor * seconds(grown(counted, cell, FEW)),
        gradients=gradients,
        passes=passes,
        networks=networks_per_image(whole, {kind: rate.networks for kind, rate in rates.items()}, cell),
        memory_mib=_memory(parts, kinds, rates, device, process),
        trained=trainings(cell, stages, {kind: rates[kind].row for kind in more}),
        pilot=images,
    )


def named(cell: Cell, device: Device) -> Forecast:
    """What is known of a cell without its parts: its record, and how much of it is there."""
    name = record_id(identity(cell, device.kind))
    record = Record(cell.outputs / "records" / name)
    left = record.missing(cell.chunks, images=cell.keep_images) if not record.complete else {}
    return replace(unnamed(cell), id=name, same=name, there=cell.chunks - sum(map(len, left.values())))


def unnamed(cell: Cell) -> Forecast:
    """The same where the models that name a record are not here."""
    names = cell.names
    told = names.experiment or f"{names.purifier} on {names.dataset}, {names.attack}"
    same = content_id({key: value for key, value in cell.plain().items() if not key.endswith("_name")})
    return Forecast("", told, cell.n, cell.chunks, 0, None, None, None, 0.0, 0.0, disk_mib=_disk(cell), same=same)


def _tried(cell: Cell, device: Device, parts: Any, seconds: Callable[[int], float]) -> tuple[float, int]:
    """What a few images do cost over the `seconds` counted for so many, and how many they are; kept, since other n ask the same.

    Images that are broken early cost less, those that a lucky draw breaks again and again cost more; and what goes on beside the
    networks is in it.
    """
    from lgap_bench.forecast.count import pilot

    for images in range(max(1, min(PILOT, cell.n // TENTH)), 0, -1):
        counted = seconds(images)
        if counted <= LONGEST:
            break
    else:
        return 1.0, 0
    asked = {**identity(cell, device.kind), "n": None, "pilot": images}
    file = cell.outputs / "rates" / f"pilot-{content_id(asked)}.json"
    with suppress(OSError, ValueError, KeyError):
        return float(json.loads(file.read_text())["factor"]), images
    factor = pilot(parts, cell, images, device) / counted
    with suppress(OSError):
        write_json(file, {"factor": factor, "images": images, "made": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    return factor, images


def _memory(parts: Any, kinds: Mapping[Any, int], rates: Mapping[Any, Any], device: Device, process: float) -> float:
    """MiB: what the dearest pass holds, and the weights; on a CPU these are in the `process` as it is before any pass."""
    held = max((rates[kind].mib * rows for kind, rows in kinds.items()), default=0.0)
    if not device.torch.startswith("cuda"):
        return process + held
    return held + sum(each.numel() * each.element_size() for each in parts.defense.parameters()) / 2**20


def _disk(cell: Cell) -> float:
    """MiB of a record: numbers of every image and draw, pictures of the first ones, and the images where they are kept."""
    from lgap_bench.cell.about import about

    shape = about(cell.dataset, "shape") or (3, 32, 32)
    image = 4 * shape[0] * shape[1] * shape[2]
    kept = image * cell.n if cell.keep_images else 0
    return (12_000 + cell.n * (60 + 25 * cell.score_draws) + 24 * image + kept) / 2**20
