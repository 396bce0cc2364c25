"""COUP's proposition 2 on images: the distance between input and purified input over t*, beside its bound.

Attacked images are purified with and without forward noise and guidance; distances and constants are l2 norms in [-1, 1]
units. The constants, the largest score and guidance, are met on the paths of every other image, and the bound is tried on
the rest: on the paths that gave the constants it could hardly fail. Writes coup_distance.csv and coup_distance.png.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lgap_bench.cell.compose import composed
from lgap_bench.defense import Defense, passes
from lgap_bench.prior.schedule import Step
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.purifier.diffusion import Term, reverse
from scripts.coup import comparison
from scripts.coup.comparison import Attacked
from scripts.coup.toy import bound

TIMES = (
    0.25,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
)  # times the cell's t*; ours, the paper's 0.075 and 0.1 among them at its scale
DRAWS = 2
ARMS = ("unguided", "coup", "strong")
DELTA = 0.05
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Attack, purify over t*, write and print."""
    args = comparison.arguments(__doc__, argv)
    refuse(args.overrides)
    if args.dry:
        return comparison.dry(args.overrides, ARMS)
    images = comparison.attacked(args.overrides, "unguided")
    rows = [row for name in ARMS for row in distances(comparison.defense(args.overrides, name), images)]
    args.out.mkdir(parents=True, exist_ok=True)
    comparison.write(rows, args.out / "coup_distance.csv")
    figure(rows, args.out / "coup_distance.png")
    print("\n".join(table(rows)))
    print(args.out / "coup_distance.csv", args.out / "coup_distance.png")


def refuse(overrides: Sequence[str]) -> None:
    """Raise ValueError for what the bound does not speak of, before anything is attacked."""
    cfg = composed(comparison.VARIANTS["coup"].cell(overrides))
    n, sampler, guidance = cfg.n, cfg.purifier.sampler, cfg.purifier.guidance
    if n < 2:
        raise ValueError(f"n={n}: every other image gives the constants, the rest are tried, use n=2 or more")
    if not sampler["_target_"].endswith(".ReverseSDE") or not sampler.noise:
        raise ValueError(
            f"purifier.sampler is {sampler['_target_']}: proposition 2 is of the reverse SDE with its noise, leave purifier/sampler alone"
        )
    if "weight" not in guidance:
        raise ValueError(
            f"purifier.guidance is {guidance['_target_']}: proposition 2 is of COUP's, leave purifier/guidance alone"
        )


def depths(purifier: DiffPure) -> list[float]:
    """The t* that are measured: multiples of the cell's that the sampler's step divides, in (0, 1]."""
    dt = purifier.sampler.dt
    counts = {round(share * purifier.t_star / dt) for share in TIMES}
    return [round(count * dt, 9) for count in sorted(counts) if 0 < count * dt <= 1]


@torch.no_grad()
def distances(defense: Defense, images: Attacked) -> list[Row]:
    """One row per forward noise and t*; every arm meets the same images and draws.

    The forward noise is the continuous one, sqrt(a(t*)) x + sqrt(1 - a(t*)) n, of which the bound speaks.
    """
    arm, rows = comparison.diffpure(defense), []
    weight = 0.0 if arm.guidance is None else float(arm.guidance.weight)  # type: ignore[arg-type]
    for forward in (None, "continuous"):
        for t_star in depths(arm):
            purifier = DiffPure(arm.prior, arm.sampler, t_star, forward, arm.guidance)
            row: Row = {"forward": int(forward is not None), "weight": weight, "t_star": t_star}
            rows.append(row | measured(defense, purifier, images, weight))
    return rows


def measured(defense: Defense, purifier: DiffPure, images: Attacked, weight: float) -> Row:
    """Distances of the odd images and all draws, the constants of the even ones' paths, the bound at an image's own norm."""
    found = paths(defense, purifier, images)
    if not bool(found.distance.isfinite().all()):
        raise ValueError(f"t*={purifier.t_star:g}: purified images are not finite: use dtype=float64")
    odd = torch.arange(len(found.distance), device=found.distance.device) % len(images.images) % 2 == 1
    tried = Paths(*(each[odd] for each in found))
    score, guidance = float(found.score[~odd].max()), float(found.guidance[~odd].max()) / (weight or 1.0)
    known: Row = {"dimension": images.images[0].numel(), "max_score": score, "max_guidance": guidance, "delta": DELTA}
    known |= {"weight": weight, "forward_noise": purifier.forward_noise is not None}
    dt, norms = purifier.sampler.dt, tried.norm.tolist()
    limits = {
        "strict": [bound(purifier.t_star, **known, norm=n, dt=dt) for n in norms],
        "published": [bound(purifier.t_star, **known, norm=n, form="published") for n in norms],
    }
    distance = tried.distance
    row: Row = {"runs": len(distance), "mean": float(distance.mean()), "quantile": float(distance.quantile(1 - DELTA))}
    for form, each in limits.items():
        row[form] = sum(each) / len(each)
        row[f"above_{form}"] = int((distance > torch.tensor(each, device=distance.device)).sum())
    row["above_constants"] = int(((tried.score > score) | (tried.guidance > guidance * (weight or 1.0))).sum())
    return row | {"norm": float(tried.norm.mean()), "max_score": score, "max_guidance": guidance}


class Paths(NamedTuple):
    """Of every image and draw (draw-major, (R,)): how far it moved, its norm, the largest score and weighted guidance."""

    distance: Tensor
    norm: Tensor
    score: Tensor
    guidance: Tensor


def paths(defense: Defense, purifier: DiffPure, images: Attacked) -> Paths:
    """Purify every attacked image DRAWS times and watch."""
    parts = []
    rows, draws = images.images.repeat(DRAWS, 1, 1, 1), images.score(DRAWS)
    for first, last in passes(len(rows), images.cell.max_rows):
        noise = draws.rows(first, last)
        x = purifier.prior.encode(defense.as_model_input(rows[first:last]), noise)
        watch = Watch(purifier.terms(x, tuple(rows.shape[-2:]), noise))
        given = (purifier.steps, None, purifier.sampler, noise, [watch])
        end = reverse(purifier.prior, purifier.start(x, noise), *given)
        parts.append(Paths(length(end - x), length(x), watch.score, watch.guidance))
    return Paths(*(torch.cat(each) for each in zip(*parts, strict=True)))


class Watch:
    """A guidance term that remembers every row's largest l2 norms of the score and of the guidance it stands for."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = terms
        self.score = self.guidance = torch.zeros(())

    def __call__(self, x_t: Tensor, e: Tensor, step: Step) -> Tensor:
        """The sum of the terms; e is the network's noise, without guidance."""
        total = torch.zeros_like(x_t)
        for term in self.terms:
            total = total + term(x_t, e, step)
        score, guidance = length(e) / (1 - step.a_t) ** 0.5, length(total)
        self.score = torch.maximum(self.score.to(score), score)
        self.guidance = torch.maximum(self.guidance.to(score), guidance)
        return total


def length(x: Tensor) -> Tensor:
    """l2 norm of every image, (B,), in float64."""
    return x.double().flatten(1).norm(dim=1)


def figure(rows: Sequence[Row], out: Path) -> None:
    """Measured distances (left) and bounds (right) over t*."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(drawn)
    left, right = drawn.subplots(1, 2)
    for forward, color in ((0, "#2166ac"), (1, "#b2182b")):
        for weight, style in zip(sorted({row["weight"] for row in rows}), ("-", "--", ":"), strict=False):
            line = [row for row in rows if (row["forward"], row["weight"]) == (forward, weight)]
            x = [row["t_star"] for row in line]
            name = f"{'with' if forward else 'without'} forward noise, weight {weight:g}"
            left.plot(x, [row["quantile"] for row in line], style, color=color, marker="o", markersize=3, label=name)
            right.plot(x, [row["strict"] for row in line], style, color=color, marker="o", markersize=3, label=name)
    left.set(
        title="measured, 95 % quantile", ylabel="l2 distance to the input ([-1, 1] units)", xlabel="t*", yscale="log"
    )
    right.set(title="bound at 95 %, constants from other images", xlabel="t*", yscale="log")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    left.legend(fontsize=8)
    drawn.suptitle(f"Proposition 2 on attacked images ({rows[0]['runs']} runs a point)", fontsize=11)
    drawn.savefig(out, dpi=90)


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as Markdown."""
    lines = [
        "| forward noise | weight | t* | mean | 95 % | bound | published | above bound | above a constant | max score | max guidance |"
    ]
    lines.append("| --- " * 11 + "|")
    for row in rows:
        values = " | ".join(f"{row[key]:.2f}" for key in ("mean", "quantile", "strict", "published"))
        above = f"{row['above_strict']} of {row['runs']} | {row['above_constants']}"
        constants = f"{row['max_score']:.1f} | {row['max_guidance']:.2f}"
        forward = "yes" if row["forward"] else "no"
        lines.append(f"| {forward} | {row['weight']:g} | {row['t_star']:g} | {values} | {above} | {constants} |")
    return lines


if __name__ == "__main__":
    from lgap_bench.runtime.errors import one_line_errors

    one_line_errors(main)
