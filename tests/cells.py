"""How the tests call the command: in a fresh process, as a user does."""

import json
import subprocess
import sys
from pathlib import Path

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
