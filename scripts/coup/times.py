"""COUP, table 4: seconds per image of a defense by depth t*, for DiffPure, COUP without guidance and COUP.

    python -m scripts.coup.times [dataset=digits] [device=auto] [images=8] [repeats=7] [outputs=outputs] [any key of a cell]

Purification and classification of one batch without gradient, purifiers and depths in turns, one thread unless
threads=... says more, the median of the repeats. t* = 0 is the classifier alone. A depth that the prior's step length does not divide is left out: the miniature's
steps are 0.05 long, so the paper's 0.001 (one of its steps) has no counterpart there. Times are no robustness: nothing is
recorded, and the table and figure lie in <outputs>/figures/.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lgap_bench.build import build
from lgap_bench.cell.check import check, require_files
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.config import Cell
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.defense import Defense
from lgap_bench.noise import streams
from lgap_bench.report import figure, write
from lgap_bench.report.page import Figure, Page, Table
from lgap_bench.report.pages import paper
from lgap_bench.runtime.device import Device, configure, find_device
from lgap_bench.runtime.errors import one_line_errors

DEPTHS = (0.0, 0.001, 0.05, 0.1, 0.15)  # the published columns, by the release's figures
# Seconds on a V100; which batch, the paper does not say.
PUBLISHED = {row["purifier"]: tuple(row["published"].values()) for row in paper.load("coup/4")["rows"]}
OWN = {"images": "8", "repeats": "7", "outputs": "outputs", "device": "auto"}
UNIT = 0.1  # the depth at which DiffPure's time is the figure's unit
Place = tuple[str, float]  # purifier, depth


def main() -> None:
    """Measure, print, write the table and the figure."""
    strange = [text for text in sys.argv[1:] if "=" not in text]
    if strange:
        raise ValueError(f"{strange[0]} is no key=value: write e.g. images=16 repeats=3 device=cuda")
    given = dict(text.split("=", 1) for text in sys.argv[1:])
    own = {key: given.pop(key, value) for key, value in OWN.items()}
    images, repeats = (_count(key, own[key]) for key in ("images", "repeats"))
    device = find_device(own["device"])
    defenses, x, noise = _built(given, images, device)
    spent: dict[Place, list[float]] = {place: [] for place in defenses}
    for _ in range(repeats + 1):  # in turns: what else the machine does falls on all alike
        for place, defense in defenses.items():
            spent[place].append(_seconds(defense, x, noise) / len(x))
    seconds = {place: median(times[1:]) for place, times in spent.items()}  # the first round warms up
    rows = [_row(name, seconds) for name in PUBLISHED]
    title = f"Seconds per image (published: seconds on a V100), {_conditions(given, own, len(x))}"
    page = Page("coup_times", title, tables=[Table(list(rows[0]), rows)], figures=[Figure(lambda: _figure(seconds))])
    files = write.export(page, Path(own["outputs"]) / "figures")
    print(write.text(page, markdown=True))
    print(*files)


def _count(key: str, text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ValueError(f"{key}={text} is no whole number from 1 on: write {key}={OWN[key]}")
    return int(text)


def _built(given: dict[str, str], images: int, device: Device) -> tuple[dict[Place, Defense], torch.Tensor, Any]:
    """Every purifier at every depth that its step length divides, composed as a cell is; and one batch of test images."""
    defenses: dict[Place, Defense] = {}
    batch: Any = None
    for name in PUBLISHED:
        for depth in DEPTHS:
            cell = _cell([f"{key}={value}" for key, value in given.items()], name, depth)
            dt = cell.purifier.get("sampler", {}).get("dt")
            if depth and abs(round(depth / dt) * dt - depth) > 1e-9:
                continue
            check(cell)
            require_files(cell)
            if batch is None:
                configure(cell.tf32, cell.threads or 1)
                batch = instantiate(cell.dataset)
            defenses[name, depth] = build(cell, device).defense  # as a cell is evaluated
    x = batch.images[:images].to(device.torch)
    return defenses, x, streams(0, batch.ids[:images].tolist())["score"].draws()


def _cell(overrides: list[str], name: str, depth: float) -> Cell:
    chosen = [f"purifier={name}", f"purifier.t_star={depth}"] if depth else ["purifier=none"]
    return resolved(["attack=pgd", *overrides, *chosen])


@torch.no_grad()
def _seconds(defense: Defense, x: torch.Tensor, noise: Any) -> float:
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None
    wait()
    at = time.perf_counter()
    defense(x, noise)
    wait()
    return time.perf_counter() - at


def _row(name: str, seconds: dict[Place, float]) -> dict[str, Any]:
    row: dict[str, Any] = {"purifier": name}
    for depth, published in zip(DEPTHS, PUBLISHED[name], strict=True):
        measured = seconds.get((name, depth))
        row |= {
            f"t* {depth:g}": None if measured is None else f"{measured:.5f}",
            f"published {depth:g}": f"{published:.3f}",
        }
    return row


def _conditions(given: dict[str, str], own: dict[str, str], images: int) -> str:
    keys = " ".join(f"{key}={value}" for key, value in given.items()) or "dataset=digits"
    return f"{keys}, {own['device']}, one batch of {images}, median of {own['repeats']} rounds"


def _figure(seconds: dict[Place, float]) -> Any:
    """Measured and published, each relative to its own DiffPure at 0.1: the machines differ, the shapes need not."""
    drawn, (axis,) = figure.panels(1)
    unit, published_unit = seconds["diffpure", UNIT], PUBLISHED["diffpure"][DEPTHS.index(UNIT)]
    for name, color in zip(PUBLISHED, figure.COLORS, strict=False):
        depths = [depth for depth in DEPTHS if (name, depth) in seconds]
        axis.plot(depths, [seconds[name, d] / unit for d in depths], color=color, marker="o", label=name)
        axis.plot(DEPTHS, [s / published_unit for s in PUBLISHED[name]], color=color, ls="--", marker=".")
    axis.set(xlabel="depth t*", ylabel=f"time per image, DiffPure at {UNIT} = 1")
    figure.legend(drawn, "dashed: published")
    return drawn


if __name__ == "__main__":
    one_line_errors(main)
