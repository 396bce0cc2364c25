"""Cost per image of the miniature's purifiers from 32 to 1,024 images, in turns: `python -m scripts.coup.growth`.

Purification and classification without gradient, in passes of `max_rows` images as a cell runs them; median per size.
`--rows 64 512` tries other sizes of a pass, `--gradient` measures the gradient through purifier and classifier.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from lgap_bench.attack.problem import Parts
from lgap_bench.attack.view import Full
from lgap_bench.build import build
from lgap_bench.cell.compose import resolved
from lgap_bench.defense import passes
from lgap_bench.noise import streams
from lgap_bench.runtime.device import CPU

PURIFIERS = "diffpure,coup_unguided,coup,gdmp,likelihood_max_guided,lgap,lgap_coup"
SIZES = (32, 256, 1024)


def main() -> None:
    """Print milliseconds per image by purifier and number of images, and the change from the smallest to the largest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repeats", type=int, nargs="?", default=3)
    parser.add_argument("--purifiers", default=PURIFIERS)
    parser.add_argument("--rows", type=int, nargs="+", default=[], help="of a pass, the purifier's own where left out")
    parser.add_argument("--gradient", action="store_true", help="with the gradient through all of it")
    args = parser.parse_args()
    if min([args.repeats, *args.rows]) < 1:
        parser.error("repeats and --rows are whole numbers from 1 on")
    torch.set_num_threads(1)
    print("| purifier | rows | " + " | ".join(f"{n} images" for n in SIZES) + " | change |")
    print("| --- | --- |" + " --- |" * (len(SIZES) + 1))
    for name in args.purifiers.split(","):
        parts, own = _built(name)
        for rows in args.rows or [own]:
            median = _measure(Full(parts.defense, rows), parts.dataset.images[:], args.repeats, args.gradient)
            change = 100 * (median[-1] / median[0] - 1)
            print(
                f"| {name} | {rows} | " + " | ".join(f"{ms:.2f}" for ms in median) + f" | {change:+.1f} % |", flush=True
            )


def _built(name: str) -> tuple[Parts, int]:
    cell = resolved([f"purifier={name}", "attack=none"])
    return build(cell, CPU), cell.max_rows


def _measure(view: Full, images: Tensor, repeats: int, gradient: bool) -> list[float]:
    """Median milliseconds per image, by the number of images; the sizes take turns."""
    found: dict[int, list[float]] = {n: [] for n in SIZES}
    _pass(view, images, SIZES[0], gradient)  # the first call warms up
    for _ in range(repeats):
        for n in SIZES:
            found[n].append(1000 * _pass(view, images, n, gradient) / n)
    return [statistics.median(found[n]) for n in SIZES]


def _pass(view: Full, images: Tensor, n: int, gradient: bool) -> float:
    """Seconds for n images, drawn in turn from the data set."""
    x, noise = images[torch.arange(n) % len(images)], streams(0, list(range(n)))["score"].draws()
    began = time.perf_counter()
    if gradient:
        for a, b in passes(n, view.max_rows):
            part = x[a:b].clone().requires_grad_()
            view.logits(part, noise.rows(a, b)).logsumexp(1).sum().backward()
    else:
        view.query(x, noise)
    return time.perf_counter() - began


if __name__ == "__main__":
    from lgap_bench.runtime.errors import one_line_errors

    one_line_errors(main)
