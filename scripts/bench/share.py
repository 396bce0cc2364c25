"""Part share: how much of a cell's time passes outside the models.

Inside is a forward pass of purifier, captioner or classifier, and the backward pass from a model's output to its input.
The rest of the backward pass (the loss, BPDA's identity) is outside.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lgap_bench.report.grid import draw_grid
from scripts.bench import cells
from scripts.bench.clock import REST, Clock
from scripts.bench.settings import Settings
from scripts.bench.timing import spread

GOAL = 5.0
MODELS = "models"


def measure(settings: Settings) -> dict[str, Any]:
    """LGAP under BPDA, from the built models to the drawn grid; one whole cell per repetition."""
    runs = [_once(settings) for _ in range(min(settings.repetitions, 2))]
    shares = [run["outside_percent"] for run in runs]
    return {
        "title": f"Share of a cell outside purifier, classifier and captioner (LGAP, BPDA-{settings.bpda_steps}, n = {settings.share_n})",
        "goal": f"at most {GOAL} %",
        "met": {"outside_percent": statistics.median(shares) <= GOAL},
        "outside_percent": spread(shares),
        "outside_percent_of_loop": spread([run["outside_percent_of_loop"] for run in runs]),
        "cells": runs,
    }


def _once(settings: Settings) -> dict[str, float]:
    attack = ("purifier=lgap", "attack=bpda", f"attack.steps={settings.bpda_steps}", f"n={settings.share_n}")
    parts, cell = cells.built(settings, *attack, *settings.cell)
    purifier, clock = parts.defense.purifier, Clock(settings.device)
    clock.attach(purifier, "forward", MODELS)
    clock.attach(purifier.captioner, "forward", MODELS, differentiated=False)
    clock.attach(purifier.captioner, "loss", MODELS)
    clock.attach(parts.defense.classifier, "forward", MODELS)
    with tempfile.TemporaryDirectory() as folder:
        clock.restart()
        record = cells.begun(cell, settings, Path(folder))
        before = clock.read()
        chunks = cells.looped(parts, cell, settings, record)
        after = clock.read()
        cells.finished(parts, cell, settings, record, chunks)
        draw_grid(record, record.classes())
        whole = clock.read()
    loop = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    # What comes after the loop over chunks (intervals, record, picture) is a fixed cost per cell.
    return {
        "seconds": sum(whole.values()),
        "seconds_in_models": sum(whole.values()) - whole[REST],
        "seconds_in_loop": sum(loop.values()),
        "outside_percent": _outside(whole),
        "outside_percent_of_loop": _outside(loop),
    }


def _outside(seconds: Mapping[str, float]) -> float:
    return 100 * seconds[REST] / sum(seconds.values())
