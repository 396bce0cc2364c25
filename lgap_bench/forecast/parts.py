"""The parts of a cell as a forecast needs them: built, but with no classifier trained for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lgap_bench.attack.problem import Parts
from lgap_bench.build import build
from lgap_bench.cell.config import Cell
from lgap_bench.cell.diffusion import guided_by_trained
from lgap_bench.runtime.device import Device


def untrained(cell: Cell, device: Device) -> Parts:
    """The parts; a classifier that the cell would train keeps the weights that it was built with."""
    parts = build(replace(cell, train=None, finetune=None), device)
    if guided_by_trained(cell):
        purifier: Any = parts.defense.purifier
        purifier.guidance.classifier = parts.defense.classifier
    return parts
