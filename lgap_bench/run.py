"""The Hydra application: one cell, or a sweep of them. `python -m lgap_bench.run key=value ...`; the main path is `measure`."""

from __future__ import annotations

import math
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lgap_bench import CONF
from lgap_bench.cell.config import resolve
from lgap_bench.cell.dry import checked
from lgap_bench.cell.form import CHDIR, check_overrides, with_home
from lgap_bench.logger.base import Logger
from lgap_bench.logger.configured import configured
from lgap_bench.measure import export_cell, run_cell
from lgap_bench.record import Record
from lgap_bench.report.screen import not_whole, one_screen, rescored
from lgap_bench.runtime.errors import Refused, is_user_error, one_line_errors
from lgap_bench.runtime.offline import stay_offline
from lgap_bench.runtime.signals import lost
from lgap_bench.sweep import command
from lgap_bench.sweep.job import Outcome, tracked


def job(cfg: DictConfig) -> Outcome | None:
    """One job of Hydra's: a cell. In a sweep its end is written to a file and no error leaves it."""
    own = HydraConfig.get()
    if own.mode != RunMode.MULTIRUN:
        try:
            cell(cfg)
        except Exception as error:
            if known := lost() or (Refused(error) if is_user_error(error) else None):
                raise known from error
            raise
        return None
    return tracked(Path(own.sweep.dir), own.job.num, list(own.overrides.task), partial(cell, cfg))


def cell(cfg: DictConfig, *more: Logger) -> tuple[Record | None, str]:
    """Measure a cell and print it, or with `dry=true` only say what it would need; `more` loggers hear of it too.
    Returns its record, whole or waiting for other shards, and what was printed."""
    own = HydraConfig.get()
    if own.job.chdir:
        raise ValueError(CHDIR)
    if cfg.offline:
        stay_offline()
    choices, loggers = own.runtime.choices, configured(cfg.get("logger"), more)
    if cfg.dry:
        return None, checked(resolve(cfg, choices), alone=own.mode != RunMode.MULTIRUN)
    try:
        record = run_cell(cfg, choices, own.overrides.task, loggers)
        again = export_cell(cfg, choices, record) if cfg.export and record.complete else None
    finally:
        loggers.closed()
    text = told(record, cfg) + ("" if again is None else f"\n\n{rescored(record, again)}")
    print(text)
    return record, text


app = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)


def told(record: Record, cfg: DictConfig) -> str:
    """A cell's numbers; of a shard whose cell is not whole yet what is missing."""
    if record.complete:
        return one_screen(record)
    chunks = math.ceil(cfg.n / cfg.chunk)
    return not_whole(record.missing(chunks, cfg.shards, cfg.keep_images), cfg.shard or 0, cfg.shards, chunks)


def main() -> None:
    """Run the application; exit code 1 if any cell could not run."""
    words = sys.argv[1:] = with_home(sys.argv[1:])
    check_overrides(words)
    if command.is_sweep(words):
        sys.exit(command.sweep(words, app)[1])
    command.check_alone(words)
    app()


if __name__ == "__main__":
    one_line_errors(import_module("lgap_bench.run").main)  # by this name other processes find its functions
