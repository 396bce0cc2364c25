"""The README's promise: a new purifier or attack is one Python file and one YAML file, as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
FILE = re.compile(r"`((?:lgap_bench|conf)/[\w/]+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)```", re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The package and its configs as links, and beside them the files that the README says to write."""
    for folder in ("lgap_bench", "conf"):
        subprocess.run(["cp", "-rs", ROOT / folder, tmp_path / folder], check=True)
    for name, text in FILE.findall(README.read_text()):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_readmes_purifier_and_attack_run_as_they_are_written(checkout: Path) -> None:
    written = {name for name, _ in FILE.findall(README.read_text())}
    assert written == {
        "lgap_bench/purifier/blur.py", "conf/purifier/blur.yaml", "lgap_bench/attack/one_step.py", "conf/attack/one_step.yaml"
    }  # fmt: skip
    command = [sys.executable, "-m", "lgap_bench.cli", "run", "purifier=blur", "attack=one_step", "n=4", "threads=1"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (summary,) = (checkout / "outputs" / "records").glob("*/summary.json")
    measured = json.loads(summary.read_text())
    assert (measured["purifier_name"], measured["attack_name"], measured["view_name"]) == ("blur", "one_step", "full")
    assert measured["mean_linf"] == pytest.approx(48 / 255, rel=0.05)
    refused = subprocess.run(
        [*command, "purifier.width=40"], cwd=checkout, env=environment, capture_output=True, text=True, timeout=300
    )
    assert "purifier.width=40 is not in int [1, 31]" in refused.stderr
