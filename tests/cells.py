"""How the tests call the command: in a fresh process, as a user does."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from lgap_bench import CONF
from lgap_bench.cell import identity, record_id, resolve, stage_identity

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


def composed(*overrides: str) -> DictConfig:
    """The config that the command line would compose, with Hydra's own part."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def resolved(*overrides: str) -> dict:
    """The cell that the command line would make of these words, not checked."""
    cfg = composed(*overrides)
    return resolve(cfg, cfg.hydra.runtime.choices)


def identified(overrides: Sequence[str]) -> dict[str, str]:
    """The id of a cell's record on a CPU, and those of the stages that it needs."""
    cell = resolved(*overrides)
    stages = {stage: cell[stage] for stage in ("train", "finetune") if cell[stage] is not None}
    if stages.get("finetune", {}).get("images") == "purified":
        stages["purified"] = {}
    ids = {stage: record_id(stage_identity(cell, stage, "cpu")) for stage in stages}
    return {"cell": record_id(identity(cell, "cpu")), **ids}
