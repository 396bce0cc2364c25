"""One cell, the main path: prepare, answer from the record or build, evaluate chunk by chunk, save."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from lgap_bench.cell.config import Cell
from lgap_bench.cell.identity import identity, record_id
from lgap_bench.cell.instantiate import check_signatures
from lgap_bench.cell.prepare import prepare
from lgap_bench.evaluate.lower import compare, made_by_other_code
from lgap_bench.logger.base import SILENT, Loggers
from lgap_bench.record import Record
from lgap_bench.report.grid import draw_grid
from lgap_bench.runtime.device import Device, configure, find_device
from lgap_bench.runtime.files import locked, writable


def run_cell(
    cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str] = (), loggers: Loggers = SILENT
) -> Record:
    """Measure one cell, or answer from its record. Raises ValueError in one line for anything the user can mend.

    `overrides` are what the user asked for, kept beside the record so that tables find it by its experiment.
    """
    cell = prepare(cfg, choices)
    loggers.preparing(cell)
    device = find_device(cell.device)
    identified = identity(cell, device.kind)  # once: code that is edited while the cell runs is another call's
    record = Record(cell.outputs / "records" / record_id(identified))
    if not record.complete:
        configure(cell.tf32, cell.threads)
        check_signatures(cell)
        writable(cell.outputs / "records")
    if not record.settled:  # a kill may have left a finished record with chunks beside it, or without its picture
        with locked(cell.outputs, record.folder.name, cell.title):
            if not record.complete:  # another job may have measured it while this one waited
                measure(cell, record, identified, device, loggers)
                compare(record, cell.outputs)
            record.check(cell.keep_images)
            draw_grid(record, record.classes())
            record.tidy()
    record.check(cell.keep_images)
    if cell.names.experiment:
        record.request(cell.names.experiment, list(overrides))
    return record


def measure(
    cell: Cell, record: Record, identified: Mapping[str, Any], device: Device, loggers: Loggers = SILENT
) -> None:
    """Build the parts (training what has to be trained), evaluate, save; the loggers hear of it."""
    from lgap_bench.build import build  # here, since these bring torch, and a recorded cell answers without it
    from lgap_bench.evaluate.loop import evaluate
    from lgap_bench.evaluate.summary import finish

    began = time.monotonic()
    loggers.started(cell, record)
    if (earlier := made_by_other_code(cell.outputs, identified)) is not None:
        loggers.phase(f"{cell.title}: its code has changed since record {earlier}, measured anew")
    try:
        parts = build(cell, device, loggers)
        record.begin(cell.plain(), identified)
        chunks = evaluate(parts, cell, record, device, loggers)
        finish(record, chunks, parts, cell, device, began)
    except BaseException as error:
        loggers.failed(error)
        record.abandon()
        raise
    loggers.finished(record)
