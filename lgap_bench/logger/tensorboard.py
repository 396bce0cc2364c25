"""Progress for TensorBoard, where its package is installed."""

from __future__ import annotations

import importlib.util
from typing import Any

from lgap_bench.cell.config import Cell
from lgap_bench.logger.base import Done, Logger
from lgap_bench.record import Record


class Tensorboard(Logger):
    """One run per cell below <outputs>/tensorboard: robust accuracy so far, and at the end natural and robust accuracy.

    Raises ValueError where the package `tensorboard` is missing.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ValueError(
                "the package tensorboard is missing: pip install tensorboard, or choose logger=[console,csv]"
            )
        self.writer: Any = None

    def started(self, cell: Cell, record: Record) -> None:
        """A run of the record's name."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(cell.outputs / "tensorboard" / record.folder.name))
        self.writer.add_text("cell", f"{cell.title}, seed {cell.seed}")

    def chunk(self, done: Done) -> None:
        """Percent so far, by the number of images."""
        self.writer.add_scalar("robust so far", done.robust, done.images)
        self.writer.flush()

    def finished(self, record: Record) -> None:
        """The record's accuracies."""
        summary = record.summary()
        for title in ("natural", "robust"):
            if title in summary:
                self.writer.add_scalar(title, summary[title]["mean"], summary["n"])
        self.writer.close()

    def failed(self, error: BaseException) -> None:
        """What was finished stays."""
        self.writer.close()
