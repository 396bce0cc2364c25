"""scripts/gpu.sh runs from end to end at toy size on a CPU, and what each of its parts leaves is what a forecast reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lgap_bench.prior.pixel import load
from scripts.gpu.networks import networks
from scripts.gpu.prior import MOST, network

ROOT = Path(__file__).parent.parent
PARTS = ("suite", "networks", "pipeline", "tables", "prior")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What QUICK=1 leaves."""
    folder = tmp_path_factory.mktemp("gpu")
    own = {**os.environ, "QUICK": "1", "OUT": str(folder), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "scripts/gpu.sh"], cwd=ROOT, env=own, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_every_part_runs_to_its_end_and_says_so(out):
    told = (out / "summary.txt").read_text().splitlines()
    cells = [
        f"cell-{purifier}-{attack}"
        for attack in ("pgd", "bpda", "full")
        for purifier in ("diffpure", "coup_unguided", "coup")
    ]
    assert [line.split()[0] for line in told] == [*PARTS, *cells]
    assert all(line.endswith("done") for line in told), told


@pytest.mark.slow
def test_the_table_of_networks_is_what_a_forecast_needs(out):
    held = json.loads((out / "networks.json").read_text())
    assert {row["network"] for row in held["rows"]} == set(networks(quick=True))
    for row in held["rows"]:
        assert row["forward"]["seconds"] > 0
        assert row["forward"]["gflop"] > 0
        assert row["weights"] > 0
        assert ("gradient" in row) == ("text encoder" not in row["network"])
    assert {"cpu", "device", "torch"} <= held["machine"].keys()


@pytest.mark.slow
def test_lgap_stands_beside_the_plain_pipeline(out):
    held = json.loads((out / "pipeline.json").read_text())
    assert set(held["bpda"]["seconds"]) == {"plain script", "own", "own, last iterate"}


@pytest.mark.slow
def test_the_trained_prior_is_one_that_cells_read(out):
    assert load(str(out / "prior")).train_steps == 1000
    assert len(list((out / "cells" / "records").glob("*/summary.json"))) == 9


def test_the_prior_that_is_trained_there_has_at_most_35_million_weights():
    assert 30e6 < sum(each.numel() for each in network(96).parameters()) <= MOST


@pytest.mark.slow
def test_a_part_that_fails_is_named_and_ends_the_command_with_an_error(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho something is missing\nexit 3\n")
    python.chmod(0o755)
    own = {**os.environ, "QUICK": "1", "OUT": str(tmp_path / "out"), "PYTHON": str(python)}
    done = subprocess.run(["bash", "scripts/gpu.sh"], cwd=ROOT, env=own, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "networks 0 s: failed (3): something is missing" in done.stdout
