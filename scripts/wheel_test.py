"""The wheel's core in fresh environments: `python -m scripts.wheel_test dist/*.whl --pythons python3.11 python3.12 python3.13`.

Each interpreter gets an environment with the wheel, without extras, beside the newest requests, timm and setuptools. There
a short cell runs from another folder, and what is an extra is asked for and has to name itself. Needs a package index.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BESIDE = ("requests>=2.32", "setuptools>=81", "timm>1.0.9")  # what the extras pin lower
CELL = ("run", "purifier=lgap", "attack=full", "n=2", "attack.steps=2", "score_draws=2", "threads=1", "device=cpu")
SQUARE = (
    "run",
    "purifier=none",
    "attack=square",
    "n=2",
    "attack.n_queries=3",
    "score_draws=1",
    "threads=1",
    "device=cpu",
)
OPTIONAL = {  # words that need an extra -> what the refusal has to say
    ("run", "attack=eotpgd"): "pip install 'lgap-bench[torchattacks]'",
    ("run", "logger=wandb"): "pip install 'lgap-bench[wandb]'",
    ("run", "purifier=coup", "attack=adjoint"): "pip install 'lgap-bench[adjoint]'",
}


def main() -> None:
    """Try every interpreter; exit 1 at the first that fails, and where none of them is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--pythons", nargs="+", default=[sys.executable])
    arguments = parser.parse_args()
    here = [python for python in arguments.pythons if shutil.which(python)]
    for python in arguments.pythons:
        print(f"{python}: {tried(arguments.wheel, python) if python in here else 'not on this machine'}", flush=True)
    if not here:
        sys.exit("none of these interpreters is on this machine: give others with --pythons")


def tried(wheel: Path, python: str) -> str:
    """What the wheel did under an interpreter, in a few words. Raises CalledProcessError where it failed."""
    with tempfile.TemporaryDirectory(prefix="lgap-bench-wheel-") as folder:
        place = Path(folder)
        environment = installed(wheel.resolve(), python, place)
        for cell in (CELL, SQUARE):
            answered = called(environment, place, *cell)
            if answered.returncode or "natural" not in answered.stdout:
                sys.exit(f"{python}: lgap-bench {' '.join(cell)} failed:\n{answered.stdout}{answered.stderr}")
        for words, said in OPTIONAL.items():
            answered = called(environment, place, *words)
            if answered.returncode != 1 or said not in answered.stderr:
                sys.exit(f"{python}: lgap-bench {' '.join(words)} does not say {said}:\n{answered.stderr}")
    return "installs, runs two cells, names what is missing"


def installed(wheel: Path, python: str, place: Path) -> Path:
    """A fresh environment with the wheel's core beside current neighbours."""
    environment = place / "environment"
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--python", shutil.which(python) or python, str(environment)], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", str(environment / "bin" / "python"), str(wheel), *BESIDE]
    subprocess.run(command, check=True, cwd=place)  # elsewhere: the checkout's own settings of uv do not count
    return environment


def called(environment: Path, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The installed command, from a folder that is not the checkout."""
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}  # the wheel's code, no checkout's
    command = [str(environment / "bin" / "lgap-bench"), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=place, env=own, timeout=600)


if __name__ == "__main__":
    main()
