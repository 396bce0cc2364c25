"""Parts of one's own outside the checkout: a folder of configs beside one's code, or an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
from torch.nn import functional as F
from lgap_bench.purifier.base import Purifier


class Blur(Purifier):
    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x, noise, observed=None):
        return F.avg_pool2d(x, self.width, 1, self.width // 2).clamp(0, 1)
"""
SHORT = ("attack=full", "attack.steps=1", "n=4", "threads=1")


def yaml(module: str) -> str:
    return f"_target_: {module}.Blur\nwidth: 3\n_about_:\n  limits:\n    width: int [1, 31]\n"


def run(folder: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH"))))}
    call = [str(Path(sys.executable).with_name("lgap-bench")), "run", *words]
    return subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def beside(tmp_path):
    (tmp_path / "conf" / "purifier").mkdir(parents=True)
    (tmp_path / "conf" / "purifier" / "blur.yaml").write_text(yaml("blurs"))
    (tmp_path / "blurs.py").write_text(CODE)
    return tmp_path


def names(folder: Path) -> list[str]:
    return [json.loads(file.read_text())["purifier_name"] for file in folder.glob("outputs/records/*/summary.json")]


def test_a_purifier_beside_ones_own_configs_is_measured(beside):
    done = run(beside, "--config-dir", "conf", "purifier=blur", *SHORT)
    assert done.returncode == 0, done.stderr
    assert names(beside) == ["blur"]
    refused = run(beside, "--config-dir", "conf", "purifier=blur", "purifier.width=40", *SHORT)
    assert "purifier.width=40 is not in int [1, 31]" in refused.stderr


def test_a_sweep_of_ones_own_purifier_is_told_like_any_other(beside):
    done = run(beside, "-m", "-cd", "conf", "purifier=blur,none", "hydra/launcher=local", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "2 cells: 2 measured" in done.stdout + done.stderr
    assert sorted(names(beside)) == ["blur", "none"]


def test_an_edited_purifier_of_ones_own_is_another_record(beside):
    for width in ("self.width", "self.width + 2"):
        (beside / "blurs.py").write_text(
            CODE.replace("x, self.width, 1, self.width // 2", f"x, {width}, 1, ({width}) // 2")
        )
        assert run(beside, "--config-dir", "conf", "purifier=blur", *SHORT).returncode == 0
    assert names(beside) == ["blur", "blur"]


def test_an_installed_package_offers_its_parts_by_an_entry_point(tmp_path):
    package = tmp_path / "site" / "my_defenses"
    (package / "conf" / "purifier").mkdir(parents=True)
    for file in (package / "__init__.py", package / "conf" / "__init__.py"):
        file.write_text("")
    (package / "blurs.py").write_text(CODE)
    (package / "conf" / "purifier" / "blur.yaml").write_text(yaml("my_defenses.blurs"))
    info = tmp_path / "site" / "my_defenses-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_defenses\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[lgap_bench.conf]\nmine = my_defenses.conf\n")
    done = run(tmp_path, "purifier=blur", *SHORT, path=str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == ["blur"]


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    done = run(tmp_path, "--config-dir", "nowhere", "purifier=blur", *SHORT)
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert "nowhere" in done.stderr
