"""What Hydra's sweeper does here beyond its own: several grids in one sweep, and jobs written down before they start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from lgap_bench.sweep.status import SweepFolder


def batches(sweeper: Any, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
    """Every combination within each grid, with the command's words after the grid's; no job twice."""
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    jobs: list[list[str]] = []
    for grid in sweeper.grids or [[]]:
        (found,) = BasicSweeper.split_arguments([*parser.parse_overrides(grid), *overrides], None)
        jobs += [job for job in found if job not in jobs]
    return [list(batch) for batch in BasicSweeper.split_overrides_to_chunks(jobs, max_batch_size)] if jobs else []


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
