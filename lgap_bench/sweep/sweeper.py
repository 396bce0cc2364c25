"""What Hydra's sweeper does here beyond its own: several grids in one sweep, and jobs written down before they start."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from lgap_bench.sweep.status import SweepFolder

SOON, OFTEN = 0.5, 50.0  # seconds after which a line says that configs are being read, and between two of them


def batches(sweeper: Any, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
    """Every combination within each grid, with the command's words after the grid's; no job twice."""
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    jobs: dict[tuple[str, ...], None] = {}  # in order, and each once
    for grid in sweeper.grids or [[]]:
        (found,) = BasicSweeper.split_arguments([*parser.parse_overrides(grid), *overrides], None)
        jobs |= dict.fromkeys(map(tuple, found))
    each = [list(job) for job in jobs]
    return [list(batch) for batch in BasicSweeper.split_overrides_to_chunks(each, max_batch_size)] if each else []


def composed(sweeper: Any, batch: Sequence[Sequence[str]]) -> None:
    """Compose every job's config, which finds errors before anything is measured; raises Hydra's.

    It takes a quarter of a second per job, so a paper's table says what goes on.
    """
    name, loader = Path(str(sweeper.config.hydra.sweep.dir)).name, sweeper.hydra_context.config_loader
    began, due = time.monotonic(), SOON
    for k, overrides in enumerate(batch, 1):
        loader.load_sweep_config(master_config=sweeper.config, sweep_overrides=list(overrides))
        took = time.monotonic() - began
        if took >= due and took / k * (len(batch) - k) > 1.0:  # not for the last second
            print(f"sweep {name}: reading configs, {k} of {len(batch)}", file=sys.stderr, flush=True)
            due = took + OFTEN


def announced(config: Any, batch: Sequence[Sequence[str]]) -> None:
    """Write down the jobs of a batch; a later batch follows those before it."""
    folder = SweepFolder(Path(str(config.hydra.sweep.dir)))
    head = folder.head()
    first = int(head.get("announced", 0))
    folder.announce(first, batch)
    folder.write_head(
        {
            **folder.head(),
            "announced": first + len(batch),
            "launcher": launcher_name(config),
            "loggers": loggers(config),
        }
    )


def loggers(config: Any) -> dict[str, Any]:
    """The composed group `logger`, for what is told once for the whole sweep."""
    held = OmegaConf.to_container(config.logger, resolve=True) if config.get("logger") else {}
    return {str(key): value for key, value in held.items()} if isinstance(held, dict) else {}


def launcher_name(config: Any) -> str:
    """The name of the chosen launcher."""
    return str(config.hydra.runtime.choices.get("hydra/launcher", "basic"))
