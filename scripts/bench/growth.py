"""Part growth: cost per image and peak memory as the number of images grows."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from scripts.bench import cells, memory
from scripts.bench.settings import ROOT, Settings
from scripts.bench.timing import spread

GOAL = 10.0


def measure(settings: Settings) -> dict[str, Any]:
    """One process per cell, LGAP under a short blind PGD and few score draws, the same chunks; sizes in turns."""
    one = _process if settings.growth_apart else cell
    found: dict[int, list[dict[str, float]]] = {n: [] for n in settings.growth}
    for _ in range(min(settings.repetitions, 2)):
        for n in settings.growth:
            found[n].append(one(settings, n))
    keys = ("ms_per_image", "cpu_ms_per_image", "peak_mib")
    figures = {str(n): {key: spread([each[key] for each in runs]) for key in keys} for n, runs in found.items()}
    first, last = str(settings.growth[0]), str(settings.growth[-1])
    change = {key: 100 * (figures[last][key]["median"] / figures[first][key]["median"] - 1) for key in keys}
    return {
        "title": f"Cost per image from {first} to {last} images (LGAP, blind PGD-{settings.growth_steps}, 2 score draws)",
        "goal": f"flat: within {GOAL} %",
        "met": {key: abs(value) <= GOAL for key, value in change.items()},
        "change_percent": change,
        "pairs_percent": {
            key: statistics.median(
                100 * (b[key] / a[key] - 1) for a, b in zip(found[int(first)], found[int(last)], strict=True)
            )
            for key in keys
        },
        "images": figures,
    }


def _process(settings: Settings, n: int) -> dict[str, float]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench.growth"],
        input=given(settings, n), capture_output=True, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the cell of {n} images failed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def given(settings: Settings, n: int) -> str:
    """What a process is told on stdin: the settings as JSON, with one size."""
    return json.dumps({**asdict(replace(settings, growth=(n,))), "data": str(settings.data)})


def taken(text: str) -> Settings:
    """The settings that `given` wrote."""
    read = json.loads(text)
    tuples = {key: tuple(value) for key, value in read.items() if isinstance(value, list)}
    return Settings(**{**read, **tuples, "data": Path(read["data"])})


def cell(settings: Settings, n: int) -> dict[str, float]:
    """The loop over chunks of one cell of n images in this process: its time per image, the process's largest memory so far.

    Imports, weights, intervals and the grid cost the same for any n and are left out.
    """
    parts, composed = cells.built(
        settings,
        # The test split has 1,000 images; what an image costs does not depend on the split.
        *("purifier=lgap", "attack=pgd", f"attack.steps={settings.growth_steps}", "dataset.split=train"),
        *("score_draws=2", f"n={n}"),
    )
    with tempfile.TemporaryDirectory() as folder:
        record = cells.begun(composed, settings, Path(folder))
        began = time.process_time()
        chunks = cells.looped(parts, composed, settings, record)
        worked = time.process_time() - began
    seconds = sum(float(chunk["seconds"]) for chunk in chunks)
    return {"ms_per_image": 1000 * seconds / n, "cpu_ms_per_image": 1000 * worked / n, "peak_mib": memory.of_process()}


def main() -> None:
    """One cell in a process of its own: settings as JSON on stdin, figures as JSON on stdout."""
    settings = taken(sys.stdin.read())
    cell(settings, 2)  # what a process sets up once is not what an image costs
    print(json.dumps(cell(settings, settings.growth[0])))


if __name__ == "__main__":
    main()
