"""What is asked of a defense besides its accuracy: does it fit the data, and is it what it says it is?"""

from __future__ import annotations

import torch

from lgap_bench.attack.problem import Parts, Problem
from lgap_bench.attack.stand_in import agreement
from lgap_bench.cell.config import Cell
from lgap_bench.noise import streams


@torch.no_grad()
def check_contract(parts: Parts, cell: Cell, x: torch.Tensor) -> None:
    """One image before any attack: does the classifier fit the data set, and is the defense as randomized as it says?

    Args:
        x: the first image, (1, C, H, W) in [0, 1], on the device.
    """
    defense, ids = parts.defense, parts.dataset.ids[:1].tolist()
    first, second = (defense(x, streams(seed, ids)["select"].draws()) for seed in (0, 1))
    if not bool(torch.isfinite(first).all()):
        raise ValueError(
            f"purifier={cell.names.purifier}, classifier={cell.names.classifier}: logits of sample {ids[0]} are not "
            "finite: try dtype=float32 or milder settings"
        )
    if first.shape[-1] != len(parts.dataset.classes):
        raise ValueError(
            f"classifier={cell.names.classifier} has {first.shape[-1]} classes, dataset={cell.names.dataset} has "
            f"{len(parts.dataset.classes)}: choose a classifier of that data set"
        )
    if not defense.randomized and not torch.equal(first, second):
        raise ValueError(
            f"purifier={cell.names.purifier} answers differently under other noise and says randomized = False: "
            "set randomized = True in its class"
        )


def probe(problem: Problem) -> dict[str, float]:
    """What a record says of the view beside the accuracies: how far an approximate gradient lies from the exact one."""
    return agreement(problem.view, problem) if problem.view.approximate else {}
