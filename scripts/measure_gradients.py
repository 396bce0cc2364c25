"""How far each view's gradient lies from the exact one: cosine and equal signs, on validation images, as markdown.

    python -m scripts.measure_gradients [n] [purifier ...] [key=value ...]

Per image the gradient of the cross-entropy at the clean image, of every view on the same noise, for one draw and for the
mean over sixteen draws (what EOT steps on). Any key of the config can be set, e.g. purifier.sampler.dt=0.01.
"""

from __future__ import annotations

import sys

import torch

from lgap_bench.attack.problem import Problem
from lgap_bench.attack.stand_in import agreement
from lgap_bench.attack.view import Bpda, View
from lgap_bench.build import build
from lgap_bench.cell.check import check
from lgap_bench.cell.compose import resolved
from lgap_bench.runtime.device import CPU

VIEWS = ("bpda", "detached", "surrogate", "adjoint")
DRAWS = (1, 16)


def measured(purifier: str, view: str, n: int, overrides: list[str]) -> list[dict[str, float]]:
    """Agreement with the exact gradient for every number of draws."""
    chosen = [f"purifier={purifier}", "attack=full", f"view={view}", "dataset.split=validation", *overrides]
    cell = resolved(chosen)
    check(cell)
    parts = build(cell, CPU)
    seen: View = parts.view
    assert isinstance(seen, Bpda) == (view == "bpda")
    data = parts.dataset
    problem = Problem(seen, data.images[:n], data.labels[:n], tuple(data.ids[:n].tolist()), parts.threat, cell.seed)
    return [agreement(seen, problem, draws, n) for draws in DRAWS]


def main(arguments: list[str]) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    n = int(arguments[0]) if arguments and arguments[0].isdigit() else 32
    overrides = [argument for argument in arguments if "=" in argument]
    print("| purifier | view | " + " | ".join(f"{d} draw{'s' * (d > 1)}: cosine | signs, %" for d in DRAWS) + " |")
    print("| --- " * (2 + 2 * len(DRAWS)) + "|")
    named = [argument for argument in arguments if "=" not in argument and not argument.isdigit()]
    for purifier in named or ("diffpure", "coup"):
        for view in VIEWS:
            if view == "detached" and purifier == "diffpure":
                continue  # there is no guidance to hide
            found = measured(purifier, view, n, overrides)
            columns = [f"{f['gradient_cosine']:.3f} | {f['gradient_signs']:.1f}" for f in found]
            print(f"| {purifier} | {view} | " + " | ".join(columns) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
