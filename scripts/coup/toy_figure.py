"""COUP's figure 3b and its two propositions on a mixture of two Gaussians: a table, coup_toy.csv and coup_toy.png.

`python -m scripts.coup.toy_figure` writes below outputs/figures/ in under a minute on one core; no network, no GPU, no weights.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.coup import toy
from scripts.coup.toy import Classifier, Mixture, bound, least_slope, purify, wilson

PANELS = (("additive", True), ("additive", False), ("multiplicative", True), ("multiplicative", False))
TIMES = (0.02, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)  # ours; 0.075 and 0.1 are the paper's for CIFAR-10
COLORS = ("#1b7837", "#2166ac", "#b8860b", "#b2182b")
DELTA = 0.05
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write and print."""
    args = arguments(argv)
    torch.set_num_threads(1)
    mixture, out = Mixture(args.mean, args.std), Path(args.out)
    rows = flips(mixture, args) + recoveries(mixture, args) + distances(mixture, args)
    out.mkdir(parents=True, exist_ok=True)
    write(rows, out / "coup_toy.csv")
    figure(rows, args, out / "coup_toy.png")
    for line in summary(rows, mixture, args):
        print(line)
    print(out / "coup_toy.csv", out / "coup_toy.png")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; "ours" marks what the paper's text at hand does not say."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=toy.RUNS, help="runs per point (ours)")
    parser.add_argument("--out", default="outputs/figures", help="folder of the CSV and the picture")
    parser.add_argument("--quick", action="store_true", help="500 runs: to see that it works")
    parser.add_argument("--seed", type=int, default=0, help="seed of the one generator that everything is drawn from")
    parser.add_argument("--mean", type=float, default=toy.MEAN, help="mean of the class +1, minus that of -1 (ours)")
    parser.add_argument("--std", type=float, default=toy.STD, help="standard deviation of either class (ours)")
    parser.add_argument("--start", type=float, default=toy.START, help="where purification starts, label +1 (ours)")
    parser.add_argument("--wrong-start", type=float, default=-0.1, help="an attacked input, label -1 (ours)")
    parser.add_argument(
        "--t-star", type=float, default=toy.T_STAR, help="purification time, as for CIFAR-10 linf (ours)"
    )
    args = parser.parse_args(argv)
    args.runs = 500 if args.quick else args.runs
    try:
        toy.times(args.t_star, toy.DT)
    except ValueError as error:
        parser.error(str(error))
    if args.runs < 1 or args.std <= 0 or args.start <= 0 or args.wrong_start >= 0:
        parser.error("--runs >= 1, --std > 0, --start > 0 (its label is +1) and --wrong-start < 0 are expected")
    return args


def at(value: float, args: argparse.Namespace) -> Tensor:
    """The same start for every run."""
    return torch.full((args.runs,), value, dtype=torch.float64)


def share(hits: Tensor, prefix: str) -> Row:
    """A proportion and its Wilson interval, in percent."""
    low, high = wilson(int(hits.sum()), len(hits))
    return {prefix: 100 * float(hits.double().mean()), f"{prefix}_low": 100 * low, f"{prefix}_high": 100 * high}


def flips(mixture: Mixture, args: argparse.Namespace) -> list[Row]:
    """Figure 3b: how often the label is lost, over guidance weight and noise level; all on the same Brownian motion.

    broken: runs that keep their label at the next smaller weight and lose it at this one; none if proposition 1 holds.
    """
    rows = []
    for kind, fresh in PANELS:
        for level in toy.LEVELS[kind]:
            paths = purify(
                at(args.start, args),
                mixture.score,
                torch.Generator().manual_seed(args.seed),
                weights=toy.WEIGHTS,
                classifier=Classifier(mixture, level, kind, fresh),
                t_star=args.t_star,
            )
            for k, weight in enumerate(toy.WEIGHTS):
                ever, end = paths.flipped_ever, paths.flipped_at_end
                row = {
                    "part": "flip",
                    "kind": kind,
                    "fresh": fresh,
                    "level": level,
                    "weight": weight,
                    "runs": args.runs,
                }
                row |= share(ever[k], "ever") | share(end[k], "end")
                rows.append(row | {"broken": int((ever[k] & ~ever[k - 1]).sum()) if k else 0})
    return rows


def recoveries(mixture: Mixture, args: argparse.Namespace) -> list[Row]:
    """The other side of proposition 1: an input that an attack has moved across the boundary, and how often it comes back."""
    generator = torch.Generator().manual_seed(args.seed)
    paths = purify(
        at(args.wrong_start, args),
        mixture.score,
        generator,
        weights=toy.WEIGHTS,
        classifier=Classifier(mixture),
        t_star=args.t_star,
    )
    return [
        {"part": "recovery", "weight": weight, "level": 0.0, "runs": args.runs} | share(end, "end")
        for weight, end in zip(toy.WEIGHTS, paths.flipped_at_end, strict=True)
    ]


def distances(mixture: Mixture, args: argparse.Namespace) -> list[Row]:
    """Proposition 2: the distance between input and purified input, beside the bound, over t_star."""
    rows = []
    for forward in (False, True):
        for weight in (0.0, 1.0):
            for t_star in TIMES:
                paths = purify(
                    at(args.start, args),
                    mixture.score,
                    torch.Generator().manual_seed(args.seed),
                    weights=(weight,),
                    classifier=Classifier(mixture),
                    t_star=t_star,
                    forward_noise=forward,
                )
                moved = (paths.end[0] - args.start).abs()
                known = {"dimension": 1, "norm": args.start, "max_score": paths.max_score, "delta": DELTA}
                known |= {"max_guidance": paths.max_guidance, "weight": weight, "forward_noise": forward}
                strict, published = bound(t_star, **known, dt=toy.DT), bound(t_star, **known, form="published")
                row = {"part": "distance", "forward": forward, "weight": weight, "t_star": t_star, "runs": args.runs}
                row |= {"mean": float(moved.mean()), "quantile": float(moved.quantile(1 - DELTA))}
                row |= {"strict": strict, "above_strict": int((moved > strict).sum())}
                row |= {"published": published, "above_published": int((moved > published).sum())}
                rows.append(row | {"max_score": paths.max_score, "max_guidance": paths.max_guidance})
    return rows


def write(rows: Sequence[Row], out: Path) -> None:
    """All rows, columns that a part does not have left empty."""
    with out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def figure(rows: Sequence[Row], args: argparse.Namespace, out: Path) -> None:
    """Four panels of flips at any time and one of distances; bands are Wilson's 95 % intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 6.4), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots(2, 3)
    for axis, (kind, fresh) in zip((axes[0, 0], axes[0, 1], axes[1, 0], axes[1, 1]), PANELS, strict=True):
        own = [row for row in rows if row["part"] == "flip" and (row["kind"], row["fresh"]) == (kind, fresh)]
        for level, color in zip(toy.LEVELS[kind], COLORS, strict=True):
            line = [row for row in own if row["level"] == level]
            x = [row["weight"] for row in line]
            axis.plot(x, [row["ever"] for row in line], color=color, marker="o", markersize=3, label=f"{level:g}")
            axis.fill_between(
                x, [row["ever_low"] for row in line], [row["ever_high"] for row in line], color=color, alpha=0.25, lw=0
            )
            axis.plot(x, [row["end"] for row in line], color=color, ls=":", lw=1)
        axis.set_xscale("symlog", linthresh=0.25, linscale=0.4)
        axis.set_xticks(toy.WEIGHTS, [f"{weight:g}" for weight in toy.WEIGHTS])
        axis.minorticks_off()
        axis.set(title=f"{kind} noise, drawn {'at every step' if fresh else 'once per run'}", ylim=(0, None))
        axis.set(xlabel="guidance weight", ylabel="label lost, %")
        axis.legend(fontsize=7, title="noise level", title_fontsize=7)
    for axis, weight in zip(axes[:, 2], (0.0, 1.0), strict=True):
        for forward, color in ((False, COLORS[1]), (True, COLORS[3])):
            line = [row for row in rows if row["part"] == "distance" and row["weight"] == weight]
            line = [row for row in line if row["forward"] == forward]
            x, name = [row["t_star"] for row in line], "with forward noise" if forward else "without"
            for key, style, text in (
                ("strict", "-", "bound"),
                ("published", "--", "published form"),
                ("quantile", ":", "measured"),
            ):
                axis.plot(x, [row[key] for row in line], style, color=color, label=f"{text}, {name}")
        axis.set(title=f"distance to the input, weight {weight:g}", xlabel="t*", ylabel="95 % quantile", yscale="log")
        axis.legend(fontsize=6.5, loc="lower right")
        axis.set_ylim(0.02, None)  # room for the legend below the curves
    drawn.suptitle(
        f"COUP's toy. All constants are ours: classes at ±{args.mean:g}, std {args.std:g}, start {args.start:g}, t* "
        f"{args.t_star:g}, step {toy.DT:g}, {args.runs} runs.\nSolid: lost at any time (figure 3b, proposition 1), band "
        "95 % interval; dotted: lost at the end. Right: proposition 2.",
        fontsize=9,
    )
    drawn.savefig(out, dpi=100)


def summary(rows: Sequence[Row], mixture: Mixture, args: argparse.Namespace) -> list[str]:
    """The short table, as Markdown."""
    lines = ["", f"label lost at any time / at the end, % ({args.runs} runs); broken: of all steps of the weight", ""]
    lines += ["| noise | level | " + " | ".join(f"weight {w:g}" for w in toy.WEIGHTS) + " | broken |"]
    lines += ["| --- " * (len(toy.WEIGHTS) + 3) + "|"]
    for kind, fresh in PANELS:
        for level in toy.LEVELS[kind]:
            own = [row for row in rows if row["part"] == "flip" and (row["kind"], row["fresh"]) == (kind, fresh)]
            own = [row for row in own if row["level"] == level]
            cells = [f"{row['ever']:.1f} / {row['end']:.1f}" for row in own]
            name = f"{kind}, {'every step' if fresh else 'once per run'}"
            lines.append(f"| {name} | {level:g} | {' | '.join(cells)} | {sum(row['broken'] for row in own)} |")
    back = [f"{row['end']:.1f}" for row in rows if row["part"] == "recovery"]
    lines.append(f"| start {args.wrong_start:g}: label +1 regained at the end | 0 | {' | '.join(back)} | |")
    slopes = ", ".join(f"{least_slope(mixture, w, args.t_star):.3f}" for w in toy.WEIGHTS)
    lines += ["", f"least slope of x + h F(x, t) on x > 0, by weight (proposition 1 wants > 0): {slopes}", ""]
    lines += ["| forward noise | weight | t* | mean | 95 % quantile | bound | published form | runs above the bound |"]
    lines += ["| --- " * 8 + "|"]
    for row in rows:
        if row["part"] == "distance":
            values = " | ".join(f"{row[key]:.3f}" for key in ("mean", "quantile", "strict", "published"))
            forward = "yes" if row["forward"] else "no"
            lines.append(f"| {forward} | {row['weight']:g} | {row['t_star']:g} | {values} | {row['above_strict']} |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
