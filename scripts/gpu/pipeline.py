"""LGAP at the release's size against the plain diffusers pipeline: `python -m scripts.gpu.pipeline OUT.json`.

What `make bench` calls --true-size, without its other parts, and with a small size on a CPU (--quick).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from lgap_bench.runtime.files import write_json
from scripts.bench import models, true_size
from scripts.bench.settings import Settings
from scripts.bench.timing import machine

FEW = ("purifier.steps=4", "purifier.strength=0.5", "purifier.spacing=leading", "purifier.guidance_scale=5")
CHEAP = ("attack.select_draws=1", "attack.confirm_draws=0")


def main() -> None:
    """Write the figures of both parts, BPDA and the exact gradient."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true", help="a few channels, 64 x 64, one image")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = replace(Settings(), device=device, repetitions=1 if given.quick else 3)
    if given.quick:
        found = true_size.measure(settings, models.narrow(16), side=64, overrides=(*FEW, *CHEAP), n=1, steps=1)
    else:
        found = true_size.measure(settings, overrides=(*true_size.RELEASE, *CHEAP), n=4, steps=2)
    write_json(given.out, {"machine": machine(device), "quick": given.quick, **found})


if __name__ == "__main__":
    main()
