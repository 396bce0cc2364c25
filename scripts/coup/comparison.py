"""Several purifiers beside one another on the images of one attacked cell: what COUP's figures are drawn from.

The cell is measured, or answered from its record, as `lgap-bench run keep_images=true` would; the other purifiers are
composed from the same overrides and meet the same attacked images and the same `score` draws.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lgap_bench.attack.view import Full
from lgap_bench.build import build
from lgap_bench.cell.compose import composed, resolved
from lgap_bench.cell.config import Cell
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.defense import Defense
from lgap_bench.measure import run_cell
from lgap_bench.noise import Noise, streams
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.runtime.device import configure, find_device

ATTACK = ("attack=apgd_ce",)  # COUP's choice for its analyses: APGD-CE on the exact gradient
# A fifth of the published steps and draws: four seconds an image on one core, and stronger than `full` at the same cost.
MINIATURE = ("dataset=digits", "n=64", "attack.n_iter=20", "attack.draws=4", "threads=1")
QUICK = ("n=6", "attack.n_iter=2", "attack.draws=1", "attack.select_draws=2")  # to see that it works
PAPER = ("dataset=cifar10", "subset=cifar10/coup_512")  # their 512 test images


@dataclass(frozen=True)
class Variant:
    """One of the purifiers that stand beside one another: its file in conf/purifier, and what is set on top of it."""

    choice: str
    text: str
    color: str
    settings: tuple[str, ...] = ()

    def cell(self, overrides: Sequence[str]) -> list[str]:
        """The overrides of its cell; those of the guidance reach guided purifiers alone."""
        guided = self.choice == "coup"
        kept = [each for each in overrides if guided or not each.lstrip("+").startswith("purifier.guidance")]
        return [*kept, f"purifier={self.choice}", *self.settings]


# In the miniature the score is a hundred times as long as the guidance, so that the paper's weight moves next to nothing;
# `strong` (ours) is a weight at which both pull alike, so that there is something to see.
VARIANTS = {
    "diffpure": Variant("diffpure", "DiffPure", "#666666"),
    "unguided": Variant("coup_unguided", "unguided", "#b2182b"),
    "coup": Variant("coup", "COUP", "#1b7837"),
    "strong": Variant("coup", "COUP, weight 100", "#2166ac", ("purifier.guidance.weight=100",)),
}


@dataclass(frozen=True)
class Attacked:
    """The images of one cell and how often its own purifier failed on them.

    Attributes:
        cell: the resolved config.
        clean, images: (n, C, H, W) in [0, 1], before and after the attack.
        labels: (n,); ids: what their noise is keyed by.
        wrong: (draws, n) bool, the record's own scoring.
        classes: the names of the labels.
    """

    cell: Cell
    clean: Tensor
    images: Tensor
    labels: Tensor
    ids: tuple[int, ...]
    wrong: Tensor
    classes: list[str]

    def score(self, draws: int = 1, chosen: Sequence[int] | None = None) -> Noise:
        """Fresh draws that no attack has seen, draw-major, for all or some of the samples."""
        stream = streams(self.cell.seed, self.ids)["score"]
        return (stream if chosen is None else stream.take(chosen)).draws(draws)


def arguments(text: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line that the figures share; `overrides` is then the whole list, scale first."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/figures"), help="folder of the pictures and CSVs")
    parser.add_argument("--quick", action="store_true", help="six images and two attack steps: to see that it works")
    parser.add_argument(
        "--paper", action="store_true", help="the 512 CIFAR-10 images of the paper, APGD-CE as published"
    )
    parser.add_argument("--dry", action="store_true", help="check the cells and say what they need; measure nothing")
    parser.add_argument("overrides", nargs="*", help="as of `lgap-bench run`, e.g. n=16 threat=digits/l2 outputs=...")
    args = parser.parse_intermixed_args(argv)
    scale = PAPER if args.paper else MINIATURE
    args.overrides = [*scale, *ATTACK, *(QUICK if args.quick else ()), *args.overrides]
    return args


def dry(overrides: Sequence[str], variants: Sequence[str]) -> None:
    """Check every variant's cell without its weights. Raises ValueError for the first that could not work."""
    from lgap_bench.cell.dry import dry as checked

    for name in variants:
        print(checked(resolved(VARIANTS[name].cell(overrides))))


def attacked(overrides: Sequence[str], variant: str) -> Attacked:
    """Attack a variant, or take the record's answer. Raises ValueError if the attack failed on a sample."""
    chosen = [*VARIANTS[variant].cell(overrides), "keep_images=true"]
    cfg = composed(chosen)
    record = run_cell(cfg, cfg.hydra.runtime.choices, chosen)
    cell = resolved(chosen)
    if record.summary()["failed"]:
        raise ValueError(
            f"purifier={cell.names.purifier}: the attack failed on {record.summary()['failed']} samples: use dtype=float64"
        )
    data, samples, n = instantiate(cell.dataset), record.samples(), cell.n
    device = find_device(cell.device).torch
    with np.load(record.folder / "images.npz", allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays["attacked"]).to(device)
    predicted = torch.tensor(samples["attacked_prediction"]).T
    labels = torch.tensor(samples["label"])
    clean = data.images[:n].to(device)
    ids = tuple(int(i) for i in samples["id"])
    return Attacked(cell, clean, images, labels.to(device), ids, predicted != labels, list(data.classes))


def defense(overrides: Sequence[str], variant: str) -> Defense:
    """The classifier behind a variant of the purifier, on its device."""
    cell = resolved(VARIANTS[variant].cell(overrides))
    configure(cell.tf32, cell.threads)
    return build(cell, find_device(cell.device)).defense


def diffpure(of: Defense) -> DiffPure:
    """The defense's purifier. Raises ValueError unless it is one of DiffPure's family in pixel space."""
    if not isinstance(of.purifier, DiffPure):
        raise ValueError(
            f"{type(of.purifier).__name__} has no reverse process to follow: use purifier=coup or diffpure"
        )
    return of.purifier


def predictions(of: Defense, images: Attacked, draws: int) -> Tensor:
    """The defense's predictions of the attacked images on fresh draws, (draws, n)."""
    return Full(of, images.cell.max_rows).query(images.images, images.score(draws)).argmax(-1).cpu()


def write(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """All rows as a CSV; they have the same columns."""
    with out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def majority_wrong(wrong: Tensor) -> Tensor:
    """(n,) of (draws, n): not right in more than half of the draws, as `majority` in the tables; a tie is wrong."""
    return (~wrong).double().mean(0) <= 0.5
