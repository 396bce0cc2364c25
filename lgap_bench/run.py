"""One cell: prepare, build, evaluate chunk by chunk, save the record. `python -m lgap_bench.run key=value ...`"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lgap_bench import CONF
from lgap_bench.cell.config import Cell, resolve
from lgap_bench.cell.dry import dry
from lgap_bench.cell.form import CHDIR, check_overrides, with_home
from lgap_bench.cell.identity import identity, record_id
from lgap_bench.cell.instantiate import check_signatures
from lgap_bench.cell.prepare import prepare
from lgap_bench.logger.base import SILENT, Loggers
from lgap_bench.logger.configured import configured
from lgap_bench.record import Record
from lgap_bench.report.grid import draw_grid
from lgap_bench.report.screen import one_screen
from lgap_bench.runtime.device import Device, configure, find_device
from lgap_bench.runtime.errors import is_users, one_line_errors, sentence
from lgap_bench.runtime.files import locked, writable

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
            print(one_screen(run_cell(cfg, choices, overrides, configured(cfg.logger))))
    except Exception as error:
        if not is_users(error):
            raise
        FAILED.append(sentence(error))
        print(FAILED[-1], file=sys.stderr)


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


def run_cell(
    cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str] = (), loggers: Loggers = SILENT
) -> Record:
    """Measure one cell, or answer from its record. Raises ValueError in one line for anything the user can mend.

    `overrides` are what the user asked for, kept beside the record so that tables find it by its experiment.
    """
    cell = prepare(cfg, choices)
    device = find_device(cell.device)
    record = Record(cell.outputs / "records" / record_id(identity(cell, device.kind)))
    if not record.complete:
        configure(cell.tf32, cell.threads)
        check_signatures(cell)
        writable(cell.outputs / "records")
        with locked(cell.outputs, record.folder.name, cell.title):
            if not record.complete:  # another job may have measured it while this one waited
                measure(cell, record, device, loggers)
    record.check(cell.keep_images)
    record.tidy()
    if not (record.folder / "grid.png").exists():  # a kill may have taken it
        draw_grid(record, record.classes())
    if cell.names.experiment:
        record.request(cell.names.experiment, list(overrides))
    return record


def measure(cell: Cell, record: Record, device: Device, loggers: Loggers = SILENT) -> None:
    """Build the parts (training what has to be trained), evaluate, save; the loggers hear of it."""
    from lgap_bench.build import build  # here, since these bring torch, and a recorded cell answers without it
    from lgap_bench.evaluate.facts import cell_facts, run_facts
    from lgap_bench.evaluate.loop import evaluate
    from lgap_bench.evaluate.summary import summarise

    began = time.monotonic()
    loggers.started(cell, record)
    try:
        parts = build(cell, device, loggers)
        record.begin(cell.plain(), identity(cell, device.kind))
        chunks = evaluate(parts, cell, record, device, loggers)
        facts = cell_facts(cell, record.folder.name, device, parts.dataset.classes)
        numbers = summarise(chunks, parts.dataset.task, parts.measures)
        record.finish(chunks, {**facts, **numbers}, run_facts(chunks, began, device))
        loggers.finished(record)
    except BaseException as error:
        loggers.failed(error)
        record.abandon()
        raise


if __name__ == "__main__":
    one_line_errors(main)
