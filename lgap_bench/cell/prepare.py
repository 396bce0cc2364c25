"""From a composed config to a cell that can work: every check that needs no model, once, in this order."""

from __future__ import annotations

from collections.abc import Mapping

from omegaconf import DictConfig

from lgap_bench.cell.check import check, require_files
from lgap_bench.cell.config import Cell, resolve


def prepare(cfg: DictConfig, choices: Mapping[str, str]) -> Cell:
    """The cell that a config means. Raises ValueError for the first thing that cannot work, in one line with the mend."""
    cell = resolve(cfg, choices)
    check(cell)
    require_files(cell)
    return cell
