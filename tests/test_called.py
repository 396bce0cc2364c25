"""The command called in a warm process answers as in a fresh one: return code, stdout, stderr; and leaves nothing behind."""

import logging
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from cells import SMALL, called, lgap_bench
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

CALLS = {
    "no such command": ["rnu"],
    "out of range": ["run", "threat.eps=8"],
    "a sweep of which one cell fails": ["run", "dry=true", "-m", "threat.eps=8,8/255"],
    "no such flag": ["run", "--nonsense"],
    "a report of nothing": ["report", "table=coup/1"],
    "a cell": ["run", "purifier=none", "attack=pgd", *SMALL],
}


def process() -> dict[str, object]:
    """What this process has once and the command changes."""
    root = logging.getLogger()
    return {
        "argv": sys.argv[:], "environment": dict(os.environ), "folder": Path.cwd(), "threads": torch.get_num_threads(),
        "hydra": (GlobalHydra.instance().is_initialized(), HydraConfig.instance().cfg),
        "logging": (root.handlers[:], root.level), "heard": signal.getsignal(signal.SIGTERM), "out": (sys.stdout, sys.stderr),
    }  # fmt: skip


def steady(text: str, outputs: Path) -> list[str]:
    """Lines without what differs between any two runs: the outputs' folder, the seconds, what is said where they are many."""
    told = re.sub(r"\d+(\.\d)? s\b", "SECONDS", text.replace(str(outputs), "OUTPUTS"))
    told = told.replace(" (SECONDS of the processor)", "")  # said where others work on the machine
    return [
        line for line in told.splitlines() if not line.endswith(("code, SECONDS", "parts, SECONDS"))
    ]  # of a slow start


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_a_warm_process_answers_as_a_fresh_one_and_is_left_as_it_was(name, tmp_path):
    outputs = {kind: tmp_path / kind for kind in ("first", "again", "fresh")}
    words = {kind: [*CALLS[name], f"outputs={folder}"] for kind, folder in outputs.items()}
    before = process()
    # Twice, with a failure between: neither what came before nor its failure shows.
    warm = {"first": called(*words["first"])}
    called("run", "threat.eps=9")
    assert process() == before
    warm["again"], fresh = called(*words["again"]), lgap_bench(*words["fresh"])
    for kind, done in warm.items():
        assert done.returncode == fresh.returncode, fresh.stderr
        assert steady(done.stdout, outputs[kind]) == steady(fresh.stdout, outputs["fresh"])
        assert steady(done.stderr, outputs[kind]) == steady(fresh.stderr, outputs["fresh"])
