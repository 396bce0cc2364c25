"""One cell, the main path: prepare, answer from the record or build, evaluate chunk by chunk, save.

Several processes may work on one cell at once, as shards or by the same command: they share its chunks, and whoever finishes
last makes the record whole.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import yaml
from omegaconf import DictConfig

from lgap_bench import CONF
from lgap_bench.cell.config import SHARING, Cell
from lgap_bench.cell.identity import identity, record_id
from lgap_bench.cell.instantiate import check_signatures, instantiate
from lgap_bench.cell.prepare import prepare
from lgap_bench.evaluation.lower import compare, made_by_other_code
from lgap_bench.evaluation.share import nobody_at
from lgap_bench.logger.base import SILENT, Loggers
from lgap_bench.record import Record
from lgap_bench.report.grid import draw_grid
from lgap_bench.runtime import lease, peak
from lgap_bench.runtime.device import Device, configure, find_device
from lgap_bench.runtime.files import writable


def run_cell(
    cfg: DictConfig,
    choices: Mapping[str, str],
    overrides: Sequence[str] = (),
    loggers: Loggers = SILENT,
    live: Mapping[str, Any] | None = None,
) -> Record:
    """Measure one cell, or answer from its record. Raises ValueError in one line for anything the user can mend.

    A shard measures its own chunks. As long as others are missing the record that is returned is not `complete`, and
    its `missing` says which.

    Args:
        overrides: what the user asked for, kept beside the record so that tables find it by its experiment.
        live: parts that exist already, by group, instead of those that the config builds; the config says what identifies them.
    """
    cell = prepare(cfg, choices)
    loggers.preparing(cell)
    device = find_device(cell.device)
    identified = identity(cell, device.kind)  # once: code that is edited while the cell runs is another call's
    record = Record(cell.outputs / "records" / record_id(identified))
    if not record.complete:
        configure(cell.tf32, cell.threads, device)
        check_signatures(cell)
        writable(cell.outputs / "records")
        if _has_work(cell, record):
            measure(cell, record, identified, device, loggers, live)
    if record.complete:
        _settle(cell, record)
    if cell.names.experiment and record.folder.exists():
        record.request(cell.names.experiment, [word for word in overrides if not _says_whose(word)])
    return record


def export_cell(cfg: DictConfig, choices: Mapping[str, str], record: Record) -> Record:
    """Write a finished cell's attacked images as a data set, and measure its 8-bit images as a cell with attack=given."""
    from lgap_bench.evaluation.export import BYTES, export

    cell = prepare(cfg, choices)
    dataset = instantiate(cell.dataset)
    folder = export(record, dataset.images[: cell.n].numpy(), cell.outputs)
    again = copy.deepcopy(cfg)
    given = yaml.safe_load((CONF / "attack" / "given.yaml").read_text())
    again.attack = {**{key: value for key, value in given.items() if key != "defaults"}, "file": str(folder / BYTES)}
    again.view, again.export, again.keep_images = (
        yaml.safe_load((CONF / "view" / "none.yaml").read_text()),
        False,
        False,
    )
    chosen = {key: name for key, name in choices.items() if not key.startswith("experiment")}
    return run_cell(again, {**chosen, "attack": "given", "view": "none"})


def measure(
    cell: Cell,
    record: Record,
    identified: Mapping[str, Any],
    device: Device,
    loggers: Loggers = SILENT,
    live: Mapping[str, Any] | None = None,
    alone: bool = False,
) -> None:
    """Build the parts (training what has to be trained), evaluate, save; the loggers hear of it.

    `alone`: the record is held against no other, and none hears of it.
    """
    from lgap_bench.build import build  # here, since these bring torch, and a recorded cell answers without it
    from lgap_bench.evaluation.loop import evaluate, gathered
    from lgap_bench.evaluation.summary import finish

    began = time.monotonic()
    loggers.started(cell, record)
    if not alone and (earlier := made_by_other_code(cell.outputs, identified)) is not None:
        loggers.phase(f"{cell.title}: its code has changed since record {earlier}, measured anew")
    try:
        peak.restart(device)
        parts = build(cell, device, loggers, live)
        cell = cell.with_rows(parts.view.max_rows)  # what max_rows=auto found
        with _alone(cell, record):
            if not record.complete:
                record.begin(cell.plain(), identified)
        chunks = evaluate(parts, cell, record, device, loggers)
        with _alone(cell, record):
            record.refresh()
            if not record.complete and (every := gathered(parts, cell, record, chunks)) is not None:
                record.begin(cell.plain(), identified)  # another worker's error may have taken it away
                finish(record, every, parts, cell, device, began)
                if not alone:
                    compare(record, cell.outputs)
    except BaseException as error:
        loggers.failed(error)
        _abandon(cell, record)
        raise
    if record.complete:
        loggers.finished(record)
    else:
        loggers.waits(record)


def _has_work(cell: Cell, record: Record) -> bool:
    """Whether this call has chunks to compute, or all are there and nobody has put them together."""
    missing = record.missing(cell.chunks, cell.shards, cell.keep_images)
    return not missing or (cell.shard or 0) in missing


def _settle(cell: Cell, record: Record) -> None:
    """Finish what a kill may have left undone at a whole record: its picture, chunks beside it, leases of the dead."""
    if not record.settled or lease.held(cell.outputs, record.folder.name):
        with _alone(cell, record):
            record.check(cell.keep_images)
            if not record.settled:
                draw_grid(record, record.classes())
            record.tidy()
            nobody_at(cell, record)
    record.check(cell.keep_images)


def _alone(cell: Cell, record: Record) -> AbstractContextManager[lease.Lease]:
    """The record's own lease: for what one worker at a time may do, which takes seconds, never for chunks."""
    return lease.lease(cell.outputs, record.folder.name, cell.title)


def _abandon(cell: Cell, record: Record) -> None:
    """After an error: no trace of a record that nobody has a chunk of, unless others are at it."""
    with suppress(OSError):  # the error is told, not what comes of it: a full disk has no room for a lease either
        held = lease.take(lease.path(cell.outputs, record.folder.name))
        if held is None:
            return
        try:
            if nobody_at(cell, record):
                record.abandon()
        finally:
            held.let_go()


def _says_whose(override: str) -> bool:
    """Whether an override only says whose chunks a call computes: every shard asks for the same cell."""
    return override.lstrip("+").partition("=")[0] in SHARING
