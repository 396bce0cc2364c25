"""Frozen cells: when this fails, results have changed, and NUMERICS_VERSION in lgap_bench/cell.py has to be raised.

`python tests/test_frozen.py` writes the file anew, beside the version it belongs to.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from lgap_bench.cell.compose import composed
from lgap_bench.cell.identity import NUMERICS_VERSION
from lgap_bench.measure import run_cell

FROZEN = Path(__file__).parent / "frozen_cells.json"
CELLS = (("lgap", "bpda"), ("lgap", "full_joint"), ("coup", "full"), ("diffpure", "apgd_ce"), ("gdmp", "bpda"))
STEPS = {"apgd_ce": "attack.n_iter=3"}


def measure(outputs: Path) -> dict:
    cells = {}
    for purifier, attack in CELLS:
        overrides = [f"attack={attack}", f"purifier={purifier}", "threat.eps=32/255", "n=6", "chunk=4", "score_draws=3",
                     STEPS.get(attack, "attack.steps=3"), "threads=1", "device=cpu", f"outputs={outputs}"]  # fmt: skip
        cfg = composed(overrides)
        samples = run_cell(cfg, cfg.hydra.runtime.choices).samples()
        keys = ("id", "clean_margin", "attacked_margin", "clean_caption", "attacked_caption")
        cells[f"{purifier} {attack}"] = {key: samples[key] for key in keys if key in samples}
    return {"numerics_version": NUMERICS_VERSION, "cells": cells}


def test_results_are_those_of_this_numerics_version(tmp_path):
    frozen, now = json.loads(FROZEN.read_text()), measure(tmp_path)
    assert frozen["numerics_version"] == NUMERICS_VERSION, "write the frozen cell anew: python tests/test_frozen.py"
    assert now["cells"].keys() == frozen["cells"].keys()
    for cell, old in frozen["cells"].items():
        new = now["cells"][cell]
        assert new["id"] == old["id"]
        assert new.get("clean_caption") == old.get("clean_caption")
        assert np.asarray(new["clean_margin"]) == pytest.approx(np.asarray(old["clean_margin"]), abs=5e-3)
        # Sign steps amplify float rounding between machines; a change of the algorithm moves most margins by far more.
        moved = np.abs(np.asarray(new["attacked_margin"]) - np.asarray(old["attacked_margin"]))
        assert np.median(moved) < 0.02, f"{cell}: margins moved by {np.median(moved):.3f}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        FROZEN.write_text(json.dumps(measure(Path(folder)), indent=1) + "\n")
