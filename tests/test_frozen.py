"""A frozen cell: when this fails, results have changed, and NUMERICS_VERSION in lgap_bench/cell.py has to be raised.

`python tests/test_frozen.py` writes the file anew, beside the version it belongs to.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from lgap_bench.cell import NUMERICS_VERSION
from lgap_bench.run import CONF, run_cell

FROZEN = Path(__file__).parent / "frozen_cell.json"
ATTACKS = ("bpda", "full_joint")


def measure(outputs: Path) -> dict:
    cells = {}
    for attack in ATTACKS:
        overrides = [f"attack={attack}", "purifier=lgap", "threat.eps=32/255", "n=6", "chunk=4", "score_draws=3",
                     "attack.steps=3", "threads=1", "device=cpu", f"outputs={outputs}"]  # fmt: skip
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", overrides, return_hydra_config=True)
        samples = run_cell(cfg, cfg.hydra.runtime.choices, quiet=True).samples()
        keys = ("id", "clean_margin", "attacked_margin", "clean_caption", "attacked_caption")
        cells[attack] = {key: samples[key] for key in keys}
    return {"numerics_version": NUMERICS_VERSION, "cells": cells}


def test_results_are_those_of_this_numerics_version(tmp_path):
    frozen, now = json.loads(FROZEN.read_text()), measure(tmp_path)
    assert frozen["numerics_version"] == NUMERICS_VERSION, "write the frozen cell anew: python tests/test_frozen.py"
    for attack in ATTACKS:
        old, new = frozen["cells"][attack], now["cells"][attack]
        assert new["id"] == old["id"]
        assert new["clean_caption"] == old["clean_caption"]
        assert np.asarray(new["clean_margin"]) == pytest.approx(np.asarray(old["clean_margin"]), abs=5e-3)
        # Sign steps amplify float rounding between machines; a change of the algorithm moves most margins by far more.
        moved = np.abs(np.asarray(new["attacked_margin"]) - np.asarray(old["attacked_margin"]))
        assert np.median(moved) < 0.02, f"{attack}: margins moved by {np.median(moved):.3f}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        FROZEN.write_text(json.dumps(measure(Path(folder)), indent=1) + "\n")
