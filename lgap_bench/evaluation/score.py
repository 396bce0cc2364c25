"""Scoring: what a defense makes of images on fresh draws. An attack never scores itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgap_bench.attack.problem import Parts, Problem
from lgap_bench.attack.select import wrongness
from lgap_bench.attack.view import Full
from lgap_bench.cell.config import Cell
from lgap_bench.noise import streams
from lgap_bench.record import Chunk


@torch.no_grad()
def scored(parts: Parts, cell: Cell, problem: Problem, x: Tensor, name: str) -> tuple[Chunk, list[str] | None]:
    """The task's columns of the defense on fresh `score` draws and of the bare classifier, and what was observed.

    Clean and attacked images meet the same score draws, which no attack has seen. Raises ValueError naming the sample
    where a logit is not finite.
    """
    defense, ids = parts.defense, problem.ids
    draws = cell.score_draws if defense.randomized else 1
    noise = streams(cell.seed, ids)["score"].draws(draws)
    # Through the problem, whose journal keeps what scoring has cost too.
    logits = replace(problem, view=Full(defense, cell.max_rows), present={}).view.query(x, noise)
    finite = torch.isfinite(logits).all(-1).all(0)
    if not bool(finite.all()):
        first = ids[int((~finite).nonzero()[0])]
        raise ValueError(
            f"purifier={cell.names.purifier}, classifier={cell.names.classifier}: logits of the {name} sample "
            f"{first} are not finite: try dtype=float32 or milder settings"
        )
    columns = problem.task.columns(name, logits, problem.labels)
    columns |= problem.task.bare(name, defense.classify(x), problem.labels)
    return columns, defense.observe(x, noise.rows(0, len(x)))


@torch.no_grad()
def attacked_wrongness(parts: Parts, cell: Cell, problem: Problem, x_adv: Tensor) -> NDArray[Any]:
    """How wrong each attacked image is on `select` draws that are the same for every attack and seen by none, (B,).

    A table picks the worst attack per sample by this number and scores it on the `score` draws.
    """
    full = replace(problem, view=Full(parts.defense, cell.max_rows))
    draws = cell.score_draws if parts.defense.randomized else 1
    found = wrongness(full, x_adv, problem.stream("select").draws(draws, 0, -3))
    array: NDArray[Any] = np.asarray(found.double().cpu().numpy())
    return array
