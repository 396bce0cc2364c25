"""How the tests call the command: in a fresh process, as a user does."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lgap_bench.cell.compose import composed, resolved
from lgap_bench.cell.identity import identity, record_id, stage_identity
from lgap_bench.logger.base import SILENT, Loggers
from lgap_bench.measure import run_cell
from lgap_bench.record import Record

# A cell of a second or two: the real models, few images, few steps.
SMALL = ["n=8", "chunk=4", "score_draws=2", "attack.steps=2", "threads=1"]


def lgap_bench(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lgap_bench.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, stdin=subprocess.DEVNULL)


def only_record(outputs: Path) -> Path:
    (folder,) = (outputs / "records").iterdir()
    return folder


def summary(outputs: Path) -> dict:
    return json.loads((only_record(outputs) / "summary.json").read_text())


def identified(overrides: Sequence[str]) -> dict[str, str]:
    """The id of a cell's record on a CPU, and those of the stages that it needs."""
    cell = resolved(overrides)
    stages = [*cell.stages]
    if (cell.finetune or {}).get("images") == "purified":
        stages.append("purified")
    ids = {stage: record_id(stage_identity(cell, stage, "cpu")) for stage in stages}
    return {"cell": record_id(identity(cell, "cpu")), **ids}


def run(overrides: Sequence[str], loggers: Loggers = SILENT) -> Record:
    """A cell in this process, as the command would run it."""
    cfg = composed(overrides)
    return run_cell(cfg, cfg.hydra.runtime.choices, overrides, loggers)
