"""The promise of README.md and docs/extending.md: a part of one's own is the two files that stand there, as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE = re.compile(r"`((?:lgap_bench|conf)/[\w/]+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)```", re.DOTALL)


def written(page: str) -> dict[str, str]:
    """The files that a page says to write."""
    return dict(FILE.findall((ROOT / page).read_text()))


def checkout(folder: Path, page: str) -> Path:
    """The package and its configs as links, and beside them the page's files."""
    for part in ("lgap_bench", "conf"):
        subprocess.run(["cp", "-rs", ROOT / part, folder / part], check=True)
    for name, text in written(page).items():
        (folder / name).write_text(text)
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`lgap-bench run` with the folder's own copy of the package."""
    command = [sys.executable, "-m", "lgap_bench.cli", "run", *words, "n=4", "score_draws=2", "threads=1"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def measured(folder: Path) -> dict:
    """The one record's summary."""
    (summary,) = (folder / "outputs" / "records").glob("*/summary.json")
    return json.loads(summary.read_text())


def test_the_purifier_attack_and_logger_of_extending_run_as_they_are_written(tmp_path: Path) -> None:
    assert set(written("docs/extending.md")) == {
        "lgap_bench/purifier/blur.py", "conf/purifier/blur.yaml", "lgap_bench/attack/one_step.py", "conf/attack/one_step.yaml",
        "lgap_bench/logger/progress.py", "conf/logger/progress.yaml",
    }  # fmt: skip
    folder = checkout(tmp_path, "docs/extending.md")
    done = run(folder, "purifier=blur", "attack=one_step", "logger=[console,progress]")
    assert done.returncode == 0, done.stderr
    summary = measured(folder)
    assert (summary["purifier_name"], summary["attack_name"], summary["view_name"]) == ("blur", "one_step", "full")
    assert summary["mean_linf"] == pytest.approx(48 / 255, rel=0.05)
    assert "4 of 4 images, robust so far" in (folder / "progress.txt").read_text()
    assert "4/4  robust so far" in done.stderr, "the console hears it too"
    refused = run(folder, "purifier=blur", "attack=one_step", "purifier.width=40")
    assert "purifier.width=40 is not in int [1, 31]" in refused.stderr


def test_the_readmes_three_line_purifier_runs_as_it_is_written(tmp_path: Path) -> None:
    files = written("README.md")
    assert set(files) == {"lgap_bench/purifier/grey.py", "conf/purifier/grey.yaml"}
    assert len(files["lgap_bench/purifier/grey.py"].partition("class ")[2].splitlines()) == 3, "three lines, it says"
    folder = checkout(tmp_path, "README.md")
    done = run(folder, "purifier=grey", "attack=full", "attack.steps=1")
    assert done.returncode == 0, done.stderr
    assert measured(folder)["purifier_name"] == "grey"


def test_the_ten_lines_for_ones_own_defense_run_as_they_are_written(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/your_defense.md").read_text(), re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line]) <= 10, "ten lines, it says"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "each image's worst" in done.stdout
    assert done.stdout.splitlines()[-1] == "0.0 sound []"
