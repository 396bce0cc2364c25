"""Diagnostics: what a record keeps of the attack besides its images, for the verdict. Each costs less than a step or two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lgap_bench.attack.problem import Parts, Problem, estimate
from lgap_bench.attack.stand_in import agreement
from lgap_bench.attack.view import Full
from lgap_bench.cell.config import Cell
from lgap_bench.record import Chunk

TRIES = 8  # random corners of the ball for every image that an attack never moved
SLOPE_STEP = 1 / 16  # of the budget: how far finite differences look along the gradient
ASKED = 4  # images whose gradient is held against finite differences


def gradient_columns(parts: Parts, cell: Cell, problem: Problem) -> Chunk:
    """`zero_gradient` (B,) and `zero_pixels` (B,), the share of pixels: of the attacker's loss at the clean images."""
    if not parts.view.differentiable or not _attacked(cell):
        return {}
    try:
        at = estimate(problem, problem.x, problem.stream("attack").draws(1, 0, -3), problem.task.loss)
    except FloatingPointError:  # the attack meets it too, and counts the sample as failed
        return {}
    zero = (at.gradient == 0).flatten(1).double().mean(1)
    return {"zero_gradient": (zero == 1).cpu().numpy(), "zero_pixels": zero.cpu().numpy()}


@torch.no_grad()
def reach_columns(parts: Parts, cell: Cell, problem: Problem, x_adv: Tensor) -> Chunk:
    """`unmoved_reachable` (B,): never moved, right, and wrong at one of a few random corners of the ball, on every draw."""
    reached = torch.zeros(len(problem.x), dtype=torch.bool, device=problem.x.device)
    still = ((x_adv - problem.x).flatten(1).abs().amax(1) == 0).nonzero().flatten().tolist()
    if still and _attacked(cell):
        few = replace(problem.take(still), view=Full(parts.defense, cell.max_rows))
        select = few.stream("select").draws(3 if parts.defense.randomized else 1, 0, -6)
        right = few.task.right(few.view.query(few.x, select), few.y).any(0)
        wrong = torch.zeros_like(right)
        for number in range(TRIES):
            corner = few.threat.local(few.x).corner(few.x, few.stream("select").draws(1, number, -7))
            wrong |= (~few.task.right(few.view.query(corner, select), few.y)).all(0)
        reached[still] = right & wrong
    return {"unmoved_reachable": reached.cpu().numpy()}


def probe(problem: Problem) -> dict[str, float]:
    """Once per cell, on its first images: how far an approximate gradient lies from the exact one, and an exact one from
    finite differences."""
    found = agreement(problem.view, problem) if problem.view.approximate else slope(problem)
    return {**found, **flatness(problem)}


@torch.no_grad()
def precision_probe(parts: Parts, cell: Cell, problem: Problem, x_adv: Tensor) -> dict[str, float]:
    """`float32_agrees`: percent of the first chunk's scores, one draw each, that networks in float32 give as well.

    Asked where they are in half precision. They are made whole for it and halved again, which loses nothing.
    """
    half = getattr(torch, cell.dtype)
    if half not in (torch.bfloat16, torch.float16):
        return {}
    defense, noise = parts.defense, problem.stream("score").draws(1)
    kinds = [(each, each.dtype) for each in (*defense.parameters(), *defense.buffers())]

    def right() -> Tensor:
        view = Full(defense, cell.max_rows)
        return torch.cat([problem.task.right(view.query(x, noise), problem.y)[0] for x in (problem.x, x_adv)])

    halves = right()
    try:
        for each, kind in kinds:
            each.data = each.data.float() if kind == half else each.data
        whole = right()
    except torch.OutOfMemoryError:  # the networks fit in half precision alone
        return {}
    finally:
        for each, kind in kinds:
            each.data = each.data.to(kind)
    return {"float32_agrees": 100 * float((halves == whole).double().mean())}


@torch.no_grad()
def flatness(problem: Problem) -> dict[str, float]:
    """`flat_margin`: percent of the first images whose margin is exactly the same at a random corner of the ball.

    Where a defense answers with its decision alone, a search sees no more than a gradient does.
    """
    few = problem.take(range(min(2 * ASKED, len(problem.x))))
    noise = few.stream("select").draws(1, 0, -8)
    corner = few.threat.local(few.x).corner(few.x, few.stream("select").draws(1, 0, -9))
    here, there = (few.task.margin(few.view.query(x, noise)[0], few.y) for x in (few.x, corner))
    return {"flat_margin": 100 * float((here == there).double().mean())}


def slope(problem: Problem, images: int = ASKED) -> dict[str, float]:
    """`slope_ratio`: central difference of the loss along its normalised gradient, over the gradient's length; the median.

    1 where the gradient is right. The loss is the margin, which does not saturate; noise and captions are held. Nothing
    where the view grants no gradient, or where it is zero, which is another finding.
    """
    if not (problem.view.differentiable and problem.view.own_slope):
        return {}
    few = problem.take(range(min(images, len(problem.x))))
    noise = few.stream("attack").draws(1, 0, -4)
    try:
        at = estimate(few, few.x, noise, few.task.margin)
    except (FloatingPointError, torch.OutOfMemoryError):
        return {}
    # As far as an attack's own step, in the direction that it takes.
    near = few.threat.local(few.x)
    step = near.ascend(at.gradient, SLOPE_STEP * near.eps)
    expected = (at.gradient * step).flatten(1).sum(1)
    observed = few.view.observe(few.x, noise)
    with torch.no_grad():
        ahead, behind = (
            few.task.margin(few.view.logits(few.x + s * step, noise, observed), few.y) for s in (0.5, -0.5)
        )
    ratios = ((ahead - behind) / expected)[expected > 0]
    return {"slope_ratio": float(ratios.median())} if len(ratios) else {}


def _attacked(cell: Cell) -> bool:
    return cell.names.view != "none" and cell.names.attack != "none"


def notes(problem: Problem) -> Chunk:
    """What attack libraries said while they ran."""
    held: list[Any] = list(dict.fromkeys(problem.notes))
    return {"notes": np.asarray(held)} if held else {}
