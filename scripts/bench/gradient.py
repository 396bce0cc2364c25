"""Part gradient: what the exact gradient costs over a forward pass without one: time and memory, one EOT draw of LGAP."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lgap_bench.noise import streams
from lgap_bench.purifier.memory import Memory
from scripts.bench import memory, models
from scripts.bench.cells import built
from scripts.bench.settings import Settings
from scripts.bench.timing import race

GOAL = 3.0
NAMES = {None: "exact gradient", 0.0: "exact gradient, recompute"}  # by GiB that it may hold


def measure(settings: Settings) -> dict[str, Any]:
    """The miniature, and the same architecture as Stable Diffusion v1's with fewer channels and random weights."""
    small = cell(settings, settings.gradient_n)
    with tempfile.TemporaryDirectory() as folder:
        sizes = models.write(Path(folder), models.narrow(settings.large_width))
        larger = cell(settings, settings.large_n, *weights(folder), "purifier.resize_in=128")
    return {
        "title": "Exact gradient over forward without gradient, captions given, one draw",
        "goal": f"at most {GOAL} forward passes' time",
        "met": {
            f"{where}, {name}": part["ratios"][f"{name} / forward"]["of_medians"] <= GOAL
            for where, part in (("miniature", small), ("larger", larger))
            for name in NAMES.values()
        },
        "miniature": small,
        "larger": {"weights": sizes, **larger},
    }


def weights(folder: str) -> tuple[str, str]:
    """Overrides that point a cell at the models that `models.write` wrote."""
    return f"prior.weights={folder}/latent", f"captioner.weights={folder}/blip"


def cell(settings: Settings, n: int, *overrides: str) -> dict[str, Any]:
    parts, cell = built(settings, "purifier=lgap", "attack=full", "attack.draws=1", *overrides)
    defense, data = parts.defense, parts.dataset
    x = data.images[:n].to(settings.device)
    noise = streams(cell.seed, data.ids[:n].tolist())["attack"].draws(1)
    captions = defense.observe(x, noise)

    @torch.no_grad()
    def forward() -> None:
        defense(x, noise, captions)

    def gradient(gib: float | None) -> Callable[[], None]:
        kept = Memory(gib)

        def run() -> None:
            defense.purifier.memory = kept
            x_row = x.clone().requires_grad_(True)
            torch.autograd.grad(defense(x_row, noise, captions).sum(), x_row)

        return run

    contestants = {"forward": forward} | {name: gradient(gib) for gib, name in NAMES.items()}
    ran = race(contestants, settings.repetitions, settings.device)
    return {
        "n": n,
        "network_calls": len(defense.purifier.times),
        **ran.figures(*((name, "forward") for name in NAMES.values())),
        "peak_mib": {name: memory.of_call(run, settings.device) for name, run in contestants.items()},
    }
