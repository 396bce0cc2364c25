"""The wheel carries conf/ and the miniature's weights, and its command works from any folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_installed_elsewhere_runs_a_cell_from_another_folder(tmp_path):
    def call(*command, **more):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, **more).stdout

    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 16e6
    site, folder = tmp_path / "site", tmp_path / "somewhere"
    folder.mkdir()
    call(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
    # The wheel's package before the checkout's; its dependencies are this environment's.
    environment = {**os.environ, "PYTHONPATH": str(site)}
    where = call(sys.executable, "-c", "import lgap_bench; print(lgap_bench.__file__)", cwd=folder, env=environment)
    assert Path(where.strip()).is_relative_to(site)
    arguments = ["run", "purifier=lgap", "attack=pgd", "n=4", "attack.steps=2", "score_draws=2", "threads=1"]
    printed = call(str(site / "bin" / "lgap-bench"), *arguments, cwd=folder, env=environment)
    assert "natural" in printed
    assert list((folder / "outputs" / "records").glob("*/grid.png"))
