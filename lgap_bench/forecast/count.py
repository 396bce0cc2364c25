"""A cell's work by kind, counted on stand-ins: the evaluation's own chunk, on small images, with nothing behind it."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lgap_bench.attack.journal import KEEPS_NOTHING
from lgap_bench.attack.problem import Parts, Problem
from lgap_bench.attack.stand_in import StandIn
from lgap_bench.attack.transfer import Transfer
from lgap_bench.cell.config import Cell
from lgap_bench.defense import Defense
from lgap_bench.evaluation.loop import one_chunk
from lgap_bench.forecast.clock import seconds_of
from lgap_bench.forecast.tally import Counted, CountedClassifier, Kind, Tally, Work
from lgap_bench.logger.base import SILENT
from lgap_bench.runtime.device import CPU, Device

FEW, SIDE = 8, 16  # images of the chunk that is counted, and their height and width: no count hangs on it
WHOLE = 10**9  # rows in a pass, so that every call is counted as it was asked


Chunks = tuple[Tally, Tally]  # what the first chunk asks, which has a few diagnostics more, and what any other does


def work(parts: Parts, cell: Cell) -> Work:
    """What the cell asks if no attack ends early: exact for attacks of a fixed length."""
    return grown(chunks(parts, cell), cell, cell.n)


def chunks(parts: Parts, cell: Cell) -> Chunks:
    """The cell's two kinds of chunk, counted; a cell of one chunk has no other."""
    first = _chunk(parts, cell, 0)
    return first, _chunk(parts, cell, 1) if cell.n > cell.chunk else first


def grown(counted: Chunks, cell: Cell, images: int) -> Work:
    """What so many images of the cell ask, in chunks of its size."""
    sizes = [cell.chunk] * (images // cell.chunk) + ([images % cell.chunk] if images % cell.chunk else [])
    found: dict[Kind, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for tally, held in zip(counted, (sizes[:1], sizes[1:]), strict=True):
        for (each, asked), times in tally.calls.items():
            for size in held:
                rows, (calls, known) = asked * size / FEW, found[each]
                found[each] = calls + times * math.ceil(rows / cell.max_rows), known + times * rows
    return dict(found)


def _chunk(parts: Parts, cell: Cell, index: int) -> Tally:
    """What one chunk of a few small images asks."""
    tally = Tally()
    counted = counted_parts(parts, cell, tally)
    few = replace(cell, chunk=FEW, n=2 * FEW, max_rows=WHOLE, keep_images=False, dtype="float32")
    purifier: Any = counted.defense.purifier
    with purifier.remembering():
        one_chunk(counted, few, slice(index * FEW, (index + 1) * FEW), CPU, KEEPS_NOTHING, SILENT)
    return tally


def counted_parts(parts: Parts, cell: Cell, tally: Tally) -> Parts:
    """The parts with a stand-in for the defense, behind the same view, and small images of class 0.

    An attack that holds images of its own has nothing to ask of a stand-in, which has none of them.
    """
    held, classes = parts.defense, len(parts.dataset.classes)
    classifier = CountedClassifier(held.classifier, tally, classes)
    defense = Defense(Counted(held.purifier, tally), classifier)
    view = copy.copy(parts.view)
    view.defense, view.max_rows = defense, WHOLE
    if isinstance(view, StandIn):
        name = f"purify ({type(view).__name__.lower()})"
        view.differentiated = Defense(Counted(view.differentiated.purifier, tally, name), classifier)
    if isinstance(view, Transfer):
        view.other = CountedClassifier(view.other, tally, classes, "other")
    attack = _nothing if hasattr(parts.attack, "arrange") else parts.attack
    return replace(parts, dataset=_small(parts, classes), defense=defense, view=view, attack=attack, measures=())


def _nothing(problem: Problem) -> Tensor:
    return problem.x.clone()


def _small(parts: Parts, classes: int) -> Any:
    """Small images, all of class 0, in place of the data set's."""
    data, rows = parts.dataset, 2 * FEW
    generator = torch.Generator().manual_seed(0)
    present = None if data.present is None else (torch.arange(classes) == 0).expand(rows, classes).clone()
    return replace(
        data,
        images=0.25 + 0.5 * torch.rand(rows, 3, SIDE, SIDE, generator=generator),
        labels=torch.zeros(rows, dtype=torch.int64),
        ids=torch.arange(rows),
        present=present,
        captions=None if data.captions is None else ["an image"] * rows,
        objects=None,
    )


def pilot(parts: Parts, cell: Cell, images: int, device: Device) -> float:
    """Seconds that a few images of the cell, spread over all of it, do take: attacked and scored like a chunk, and forgotten."""
    data = parts.dataset
    places = torch.linspace(0, cell.n - 1, images).round().long().tolist()
    few = replace(
        data,
        images=torch.cat([data.images[place : place + 1] for place in places]),
        labels=data.labels[places],
        ids=data.ids[places],
        present=None if data.present is None else data.present[places],
        captions=None if data.captions is None else [data.captions[place] for place in places],
        objects=None,
    )
    smaller = replace(cell, chunk=images, n=images, keep_images=False)
    with parts.defense.purifier.remembering():
        return seconds_of(
            lambda: one_chunk(replace(parts, dataset=few), smaller, slice(0, images), device, KEEPS_NOTHING, SILENT),
            device,
        )
