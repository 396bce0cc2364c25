"""The Hydra application: one cell, or a sweep of them. `python -m lgap_bench.run key=value ...`; the main path is `measure`."""

from __future__ import annotations

import math
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lgap_bench import CONF
from lgap_bench.cell.config import resolve
from lgap_bench.cell.dry import dry
from lgap_bench.cell.form import CHDIR, check_overrides, with_home
from lgap_bench.logger.configured import configured
from lgap_bench.measure import run_cell
from lgap_bench.record import Record
from lgap_bench.report.screen import not_whole, one_screen
from lgap_bench.runtime.errors import is_user_error, one_line_errors, sentence

JOBS: list[str] = []  # of this process: a sweep over a folder that does not exist has none, and Hydra says nothing
FAILED: list[str] = []  # cells of this process that could not run: Hydra hands no job's result back


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def app(cfg: DictConfig) -> None:
    """The Hydra application: one cell per job. A cell that cannot run is named, and the sweep goes on."""
    choices, overrides = HydraConfig.get().runtime.choices, HydraConfig.get().overrides.task
    JOBS.append(HydraConfig.get().job.name)
    try:
        if HydraConfig.get().job.chdir:
            raise ValueError(CHDIR)
        if cfg.dry:
            print(dry(resolve(cfg, choices)))
        else:
            print(told(run_cell(cfg, choices, overrides, configured(cfg.logger)), cfg))
    except Exception as error:
        if not is_user_error(error):
            raise
        FAILED.append(sentence(error))
        print(FAILED[-1], file=sys.stderr)


def told(record: Record, cfg: DictConfig) -> str:
    """A cell's numbers; of a shard whose cell is not whole yet what is missing."""
    if record.complete:
        return one_screen(record)
    chunks = math.ceil(cfg.n / cfg.chunk)
    return not_whole(record.missing(chunks, cfg.shards, cfg.keep_images), cfg.shard or 0, cfg.shards, chunks)


def main() -> None:
    """Run the application; exit code 1 if any cell could not run."""
    sys.argv[1:] = with_home(sys.argv[1:])
    check_overrides(sys.argv[1:])
    app()
    if not JOBS and {"-m", "--multirun"} & set(sys.argv):
        raise ValueError(
            f"{' '.join(sys.argv[1:])}: no cell matches, so nothing was measured: glob(*) finds the files of one folder of conf/, is its name right?"
        )
    if FAILED:
        sys.exit(1)


if __name__ == "__main__":
    one_line_errors(main)
