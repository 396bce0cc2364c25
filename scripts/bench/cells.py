"""Cells as the command composes them, built for a benchmark that calls their parts itself."""

from __future__ import annotations

from omegaconf import DictConfig

from lgap_bench.attack.problem import Parts, Problem
from lgap_bench.build import build
from lgap_bench.cell import compose
from lgap_bench.cell.config import Cell, resolve
from lgap_bench.runtime.device import Device, configure
from scripts.bench.settings import Settings


def composed(settings: Settings, *overrides: str) -> DictConfig:
    """The config of a cell: `overrides` as on the command line, on the benchmark's device and threads."""
    return compose.composed([f"device={settings.device}", f"threads={settings.threads}", *overrides])


def built(settings: Settings, *overrides: str) -> tuple[Parts, Cell]:
    """A cell's parts on their device, and its resolved config."""
    cfg = composed(settings, *overrides)
    cell = resolve(cfg, cfg.hydra.runtime.choices)
    configure(cell.tf32, cell.threads)
    return build(cell, Device(settings.device, settings.device)), cell


def problem(parts: Parts, cell: Cell, n: int) -> Problem:
    """The first n images of the cell's data set, as `evaluate` hands them to an attack."""
    data = parts.dataset
    x, y = (rows[:n].to(next(parts.defense.parameters()).device) for rows in (data.images, data.labels))
    captions = [data.true_caption(k) for k in y.tolist()]
    return Problem(parts.view, x, y, tuple(data.ids[:n].tolist()), parts.threat, cell.seed, captions)
