"""COUP's figure 2a: p(y | x_t) and max_k p(k | x_t) along the purification of samples that are wrong without guidance.

Unguided purification is attacked; the samples it then gets wrong are purified again, with and without guidance and
without Brownian motion, and the bare classifier is asked at every state. Writes coup_2a.csv and coup_2a.png.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lgap_bench.defense import Defense
from lgap_bench.purifier.diffusion import states
from scripts.coup import comparison
from scripts.coup.comparison import VARIANTS, Attacked

SHOWN = ("unguided", "coup", "strong")
BAND = (0.25, 0.75)  # quantiles: confidences pile up at 0 and 1, where mean and deviation would leave [0, 1]
FINE = 10  # steps of the second panel per step of the cell, where the cell's are longer than
PAPERS = 0.001
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Attack, select, purify, write and print."""
    args = comparison.arguments(__doc__, argv)
    if args.dry:
        return comparison.dry([*args.overrides, "purifier.sampler.noise=false"], SHOWN)
    images = comparison.attacked(args.overrides, "unguided")
    chosen = comparison.majority_wrong(images.wrong).nonzero().flatten().tolist()
    if not chosen:
        raise ValueError(f"no sample of {len(images.ids)} is wrong without guidance: use more images, n=..., or steps")
    rows = curves(args.overrides, images, chosen)
    args.out.mkdir(parents=True, exist_ok=True)
    comparison.write(rows, args.out / "coup_2a.csv")
    title = f"{images.cell.names.attack} without guidance: {len(chosen)} of {len(images.ids)} samples wrong"
    figure(rows, title, args.out / "coup_2a.png")
    print(title)
    for row in rows:
        if row["end"]:
            print(
                f"  {VARIANTS[row['purifier']].text}, dt {row['dt']:g}, no Brownian motion: {row['right']} of {row['samples']} "
                f"right in the end, p(y) {row['label']:.3f}, max p {row['largest']:.3f}"
            )
    print(args.out / "coup_2a.csv", args.out / "coup_2a.png")


def curves(overrides: Sequence[str], images: Attacked, chosen: list[int]) -> list[Row]:
    """One row per purifier, step length and state: the cell's own steps, and steps a tenth as long."""
    rows = []
    dt = float(images.cell.purifier["sampler"]["dt"])
    for length in (dt, dt / FINE) if dt > PAPERS else (dt,):
        for name in SHOWN:
            silent = [*overrides, "purifier.sampler.noise=false", f"purifier.sampler.dt={length}"]
            for row in followed(comparison.defense(silent, name), images, chosen):
                rows.append({"purifier": name, "dt": length} | row)
    return rows


@torch.no_grad()
def followed(defense: Defense, images: Attacked, chosen: list[int]) -> list[Row]:
    """Means and bands over the chosen samples at every state, from the attacked image to the purified one."""
    purifier = comparison.diffpure(defense)
    noise = images.score(1, chosen)
    x_0 = purifier.prior.encode(defense.as_model_input(images.images[chosen]), noise)
    x = purifier.start(x_0, noise)
    size = tuple(images.images.shape[-2:])
    given = (None, purifier.sampler, noise, purifier.terms(x_0, size, noise))
    path = [x, *states(purifier.prior, x, purifier.steps, *given)]
    times = [*(step.t for step in purifier.steps), 0.0]
    labels = images.labels[chosen]
    right = defense.classify(purifier.prior.decode(path[-1], size)).argmax(-1) == labels
    rows = []
    for k, (t, state) in enumerate(zip(times, path, strict=True)):
        p = defense.classify(purifier.prior.image(state, size)).softmax(-1).double()
        of_label = p.gather(1, labels[:, None])[:, 0]
        row: Row = {"step": k, "t": t, "samples": len(chosen), "end": int(k == len(path) - 1)}
        row |= summary("label", of_label) | summary("largest", p.amax(-1))
        rows.append(row | {"right": int((p.argmax(-1) == labels).sum()) if k < len(path) - 1 else int(right.sum())})
    return rows


def summary(name: str, p: Tensor) -> Row:
    """Mean and band of one probability over samples."""
    low, high = p.quantile(torch.tensor(BAND, dtype=p.dtype, device=p.device)).tolist()
    return {name: float(p.mean()), f"{name}_low": low, f"{name}_high": high}


def figure(rows: Sequence[Row], title: str, out: Path) -> None:
    """One panel per probability and step length; the band holds half of the samples."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    lengths = list(dict.fromkeys(row["dt"] for row in rows))
    drawn = Figure(figsize=(4.6 * len(lengths), 6.2), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots(2, len(lengths), sharey=True, squeeze=False)
    for column, dt in enumerate(lengths):
        for axis, key in zip(axes[:, column], ("label", "largest"), strict=True):
            for purifier, style in zip(SHOWN, ("-", "--", "-"), strict=True):
                line = [row for row in rows if (row["purifier"], row["dt"]) == (purifier, dt)]
                x, color = [row["step"] for row in line], VARIANTS[purifier].color
                text = f"{VARIANTS[purifier].text}: {line[-1]['right']} of {line[-1]['samples']} right in the end"
                axis.plot(x, [row[key] for row in line], style, color=color, marker="o", markersize=3, label=text)
                band = [row[f"{key}_low"] for row in line], [row[f"{key}_high"] for row in line]
                axis.fill_between(x, *band, color=color, alpha=0.1, lw=0)
            axis.set(ylim=(-0.02, 1.02), xlim=(0, x[-1]))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.grid(alpha=0.3)
        axes[0, column].set_title(f"step {dt:g}" + (", the attacked solver's" if column == 0 else ""), fontsize=10)
        axes[0, column].legend(fontsize=8)
        axes[1, column].set_xlabel("purification step")
    axes[0, 0].set_ylabel("p(y | x_t), the true label")
    axes[1, 0].set_ylabel("max_k p(k | x_t)")
    drawn.suptitle(f"{title}\nno Brownian motion; line: mean, band: the middle half of the samples", fontsize=10)
    drawn.savefig(out, dpi=90)


if __name__ == "__main__":
    from lgap_bench.runtime.errors import one_line_errors

    one_line_errors(main)
