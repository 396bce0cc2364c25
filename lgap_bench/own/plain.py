"""This project's own defenses as plain modules, for libraries and code that know nothing of it."""

from __future__ import annotations

from lgap_bench.build import build
from lgap_bench.cell.compose import composed
from lgap_bench.cell.prepare import prepare
from lgap_bench.defense import Defense
from lgap_bench.runtime.device import configure, find_device


def load_defense(*overrides: str) -> Defense:
    """The defense of a cell, as an nn.Module from images in [0, 1] to logits: `load_defense("purifier=coup")`.

    `overrides` are those of `lgap-bench run`. On the device that they name; in eval mode, frozen. Each call draws its noise
    from torch's global generator. Raises ValueError in one line for what cannot work.
    """
    cfg = composed(overrides)
    cell = prepare(cfg, cfg.hydra.runtime.choices)
    configure(cell.tf32, cell.threads)
    return build(cell, find_device(cell.device)).defense
