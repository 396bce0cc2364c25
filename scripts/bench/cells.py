"""Cells as the command composes them, and their steps as the runner takes them: a benchmark times the steps that it calls."""

from __future__ import annotations

import time
from pathlib import Path

from omegaconf import DictConfig

from lgap_bench.attack.problem import Parts, Problem
from lgap_bench.build import build
from lgap_bench.cell import compose
from lgap_bench.cell.config import Cell, resolve
from lgap_bench.cell.identity import identity, record_id
from lgap_bench.evaluation.loop import evaluate
from lgap_bench.evaluation.summary import finish
from lgap_bench.record import Chunk, Record
from lgap_bench.runtime.device import Device, configure
from scripts.bench.settings import Settings


def composed(settings: Settings, *overrides: str) -> DictConfig:
    """The config of a cell: `overrides` as on the command line, on the benchmark's device and threads."""
    return compose.composed([f"device={settings.device}", f"threads={settings.threads}", *overrides])


def built(settings: Settings, *overrides: str) -> tuple[Parts, Cell]:
    """A cell's parts on their device, and the cell."""
    cfg = composed(settings, *overrides)
    cell = resolve(cfg, cfg.hydra.runtime.choices)
    configure(cell.tf32, cell.threads)
    return build(cell, _device(settings)), cell


def begun(cell: Cell, settings: Settings, outputs: Path) -> Record:
    """A fresh record for the cell below an outputs folder."""
    identified = identity(cell, settings.device)
    record = Record(outputs / "records" / record_id(identified))
    record.begin(cell.plain(), identified)
    return record


def looped(parts: Parts, cell: Cell, settings: Settings, record: Record) -> list[Chunk]:
    """The loop over chunks, silent."""
    return list(evaluate(parts, cell, record, _device(settings)).values())


def finished(parts: Parts, cell: Cell, settings: Settings, record: Record, chunks: list[Chunk]) -> None:
    """Intervals and facts, written: the record is whole."""
    finish(record, chunks, parts, cell, _device(settings), time.monotonic())


def problem(parts: Parts, cell: Cell, n: int) -> Problem:
    """The first n images of the cell's data set, as `evaluate` hands them to an attack."""
    data = parts.dataset
    x, y = (rows[:n].to(next(parts.defense.parameters()).device) for rows in (data.images, data.labels))
    captions = [data.true_caption(k) for k in y.tolist()]
    return Problem(parts.view, x, y, tuple(data.ids[:n].tolist()), parts.threat, cell.seed, captions)


def _device(settings: Settings) -> Device:
    return Device(settings.device, settings.device)
