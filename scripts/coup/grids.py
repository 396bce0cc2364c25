"""COUP's figures 5 and 6: attacked images purified by DiffPure, without guidance and with it, and what they are taken for.

Figure 5 shows the first images of the split, none chosen. Figure 6 shows those that are wrong without guidance and right
with it, and the opposite cases, with both counts, for attacks on either purifier: the same attacked images and the same
fresh draws for all. Writes coup_5.png, coup_6.png, coup_6.csv (counts) and coup_6_samples.csv.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lgap_bench.defense import Defense
from lgap_bench.noise import Noise
from lgap_bench.report.figure import INK, RIGHT, WRONG
from scripts.coup import comparison
from scripts.coup.comparison import VARIANTS, Attacked

# (attacked, guided): the paper attacks without guidance; an attack on the guided purifier itself knows of it.
PAIRS = (("unguided", "coup"), ("coup", "coup"), ("unguided", "strong"), ("strong", "strong"))
CASES = {"rescued": "wrong without guidance, right with it", "lost": "right without guidance, wrong with it"}
WIDE, HIGH = 1.15, 1.4  # inches of a picture with its label
COLUMNS = {"figure 5": 10, "figure 6": 6}
Row = dict[str, Any]


@dataclass(frozen=True)
class Compared:
    """The images of one attack and what every variant takes them for, (draws, n) each."""

    attacked: str
    images: Attacked
    predictions: dict[str, Tensor]
    undefended: Tensor
    defenses: dict[str, Defense]

    def wrong(self, name: str) -> Tensor:
        """(n,): wrong by the majority of the draws."""
        return comparison.majority_wrong(self.predictions[name] != self.images.labels.cpu())

    def cases(self, guided_by: str) -> dict[str, Tensor]:
        """Every image in one of four cases, without guidance against with that of a variant."""
        without, guided = self.wrong("unguided"), self.wrong(guided_by)
        return {
            "rescued": without & ~guided,
            "lost": ~without & guided,
            "both_right": ~without & ~guided,
            "both_wrong": without & guided,
        }


def main(argv: Sequence[str] | None = None) -> None:
    """Attack, score, draw and count."""
    args = comparison.arguments(__doc__, argv)
    if args.dry:
        return comparison.dry(args.overrides, list(VARIANTS))
    defenses = {name: comparison.defense(args.overrides, name) for name in VARIANTS}
    names = dict.fromkeys(name for name, _ in PAIRS)
    found = {name: compared(comparison.attacked(args.overrides, name), name, defenses) for name in names}
    args.out.mkdir(parents=True, exist_ok=True)
    counts = [counted(found[name], guided) for name, guided in PAIRS]
    comparison.write(counts, args.out / "coup_6.csv")
    comparison.write([row for each in found.values() for row in samples(each)], args.out / "coup_6_samples.csv")
    for row in counts:
        print(sentence(row))
    for each in found.values():
        print(f"attack on {VARIANTS[each.attacked].text}, right by majority: {shares(each)}")
    figure5(found["unguided"], args.out / "coup_5.png")
    figure6(found, counts, args.out / "coup_6.png")
    print(*(args.out / name for name in ("coup_5.png", "coup_6.png", "coup_6.csv", "coup_6_samples.csv")))


@torch.no_grad()
def compared(images: Attacked, name: str, defenses: dict[str, Defense]) -> Compared:
    """Every purifier on the same attacked images and the same draws; as many as the cell scores with."""
    draws = images.cell.score_draws
    predicted = {key: comparison.predictions(each, images, draws) for key, each in defenses.items()}
    undefended = defenses[name].classify(images.images).argmax(-1).cpu()
    return Compared(name, images, predicted, undefended, defenses)


def counted(found: Compared, guided: str) -> Row:
    """Counts of images; the four cases add up to n. p: a two-sided sign test of rescued against lost."""
    row: Row = {"attacked": found.attacked, "guided": guided, "attack": found.images.cell.names.attack}
    row |= {"n": len(found.images.ids), "draws": len(found.predictions["coup"])}
    row |= {name: int(case.sum()) for name, case in found.cases(guided).items()}
    return row | {"p": sign_test(row["rescued"], row["lost"])}


def shares(found: Compared) -> str:
    """How many images every variant gets right."""
    n = len(found.images.ids)
    right = {name: int((~found.wrong(name)).sum()) for name in VARIANTS}
    return ", ".join(f"{VARIANTS[name].text} {count} of {n}" for name, count in right.items())


def sign_test(a: int, b: int) -> float:
    """How likely so uneven a split of a + b is if both sides are equally likely."""
    n = a + b
    tail = sum(math.comb(n, k) for k in range(min(a, b) + 1)) / 2**n
    return min(1.0, 2 * tail)


def sentence(row: Row) -> str:
    """The counts in words."""
    return (
        f"{row['attack']} on {VARIANTS[row['attacked']].text}; {VARIANTS[row['guided']].text} against unguided, "
        f"{row['n']} images, majority of {row['draws']} draws: {row['rescued']} {CASES['rescued']}; {row['lost']} "
        f"{CASES['lost']} (sign test p = {row['p']:.2g}); {row['both_right']} right and {row['both_wrong']} wrong with both"
    )


def samples(found: Compared) -> list[Row]:
    """One row per image: wrong draws per purifier, and its case."""
    labels = found.images.labels.cpu()
    wrong = {name: (predicted != labels).sum(0).tolist() for name, predicted in found.predictions.items()}
    cases = {name: found.cases(name) for name in ("coup", "strong")}
    return [
        {"attacked": found.attacked, "id": number, "label": int(labels[i])}
        | {"undefended": int(found.undefended[i])}
        | {f"wrong_{name}": each[i] for name, each in wrong.items()}
        | {f"case_{by}": next(name for name, case in each.items() if case[i]) for by, each in cases.items()}
        for i, number in enumerate(found.images.ids)
    ]


def figure5(found: Compared, out: Path) -> None:
    """The first images, none chosen."""
    chosen = list(range(min(COLUMNS["figure 5"], len(found.images.ids))))
    drawn = canvas(WIDE * len(chosen) + 1.3, HIGH * (len(VARIANTS) + 2) + 0.6)
    title = (
        f"{found.images.cell.names.attack} on {VARIANTS[found.attacked].text}: the first {len(chosen)} images, draw 0"
    )
    block(drawn, title, INK, found, chosen, len(chosen), [0] * len(chosen))
    drawn.savefig(out, dpi=70)


def figure6(found: dict[str, Compared], counts: Sequence[Row], out: Path) -> None:
    """Rescued beside lost, a row of blocks for each pair that has any; the counts of all pairs above."""
    width = COLUMNS["figure 6"]
    told = [row for row in counts if row["rescued"] or row["lost"]] or list(counts[:1])
    drawn = canvas(2 * (WIDE * width + 1.3), (HIGH * (len(VARIANTS) + 2) + 0.7) * len(told) + 1.0)
    above, blocks = drawn.subfigures(2, 1, height_ratios=(1.0, drawn.get_figheight() - 1.0))
    above.text(0.5, 0.5, headline(counts), ha="center", va="center", fontsize=11, color=INK)
    parts = blocks.subfigures(len(told), 2, squeeze=False)
    for line, row in zip(parts, told, strict=True):
        for part, (case, title) in zip(line, CASES.items(), strict=True):
            each = found[row["attacked"]]
            chosen = each.cases(row["guided"])[case].nonzero().flatten().tolist()
            shown = chosen[:width]
            heading = (
                f"attack on {VARIANTS[row['attacked']].text}, guidance weight {weight(each, row['guided'])}: "
                f"{row[case]} of {row['n']}\n{title}" + (f" (the first {width})" if len(chosen) > width else "")
            )
            draws = [telling(each, i, row["guided"]) for i in shown]
            block(part, heading, RIGHT if case == "rescued" else WRONG, each, shown, width, draws)
    drawn.savefig(out, dpi=65)


def weight(found: Compared, guided: str) -> str:
    """The guidance weight of a variant, as it is written."""
    guidance: Any = comparison.diffpure(found.defenses[guided]).guidance
    return f"{guidance.weight:g}"


def headline(counts: Sequence[Row]) -> str:
    """All counts in short."""
    lines = [
        f"attack on {VARIANTS[row['attacked']].text}: {VARIANTS[row['guided']].text} rescues {row['rescued']} and loses "
        f"{row['lost']} of {row['n']}"
        for row in counts
    ]
    return "\n".join(lines)


def canvas(width: float, height: float) -> Any:
    """An empty picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height))
    FigureCanvasAgg(drawn)
    return drawn


def telling(found: Compared, i: int, guided: str) -> int:
    """The first draw in which both, unguided and guided, answer as they do by majority, 0 if there is none."""
    labels = found.images.labels.cpu()
    as_counted = [(found.predictions[name][:, i] != labels[i]) == found.wrong(name)[i] for name in ("unguided", guided)]
    return int((as_counted[0] & as_counted[1]).double().argmax())


Pictures = tuple[str, Tensor, Tensor, Tensor | None]  # title, images, what they are taken for, wrong draws


@torch.no_grad()
def pictures(found: Compared, chosen: list[int], draws: list[int]) -> list[Pictures]:
    """Clean, attacked and purified images, rows of n; purified are only the chosen ones, each in its own draw."""
    labels, n = found.images.labels.cpu(), len(found.images.ids)
    every = found.images.score(len(found.predictions["coup"]))
    keys = tuple(every.keys[draw * n + i] for draw, i in zip(draws, chosen, strict=True))
    noise = Noise(keys, tuple(every.ids[i] for i in chosen), every.seed)
    rows: list[Pictures] = [
        ("clean", found.images.clean, labels, None),
        ("attacked,\nno purifier", found.images.images, found.undefended, None),
    ]
    for name, variant in VARIANTS.items():
        predicted, images = found.predictions[name], torch.zeros_like(found.images.clean)
        guesses = predicted[0].clone()
        if chosen:
            images[chosen] = found.defenses[name].purify(found.images.images[chosen], noise)
            guesses[chosen] = predicted[draws, chosen]
        rows.append((variant.text.replace(", ", ",\n"), images, guesses, (predicted != labels).sum(0)))
    return rows


def block(
    place: Any, title: str, color: str, found: Compared, chosen: list[int], columns: int, draws: list[int]
) -> None:
    """One column per chosen image, headed by what it is taken for: green where right."""
    labels, classes, total = found.images.labels.cpu(), found.images.classes, len(found.predictions["coup"])
    rows = pictures(found, chosen, draws)
    # Laid out by hand: constrained layout measures hundreds of axes, which takes longer than all else.
    spaces = {"left": 1.1 / (WIDE * columns + 1.3), "right": 0.99, "bottom": 0.03, "top": 0.9, "hspace": 0.42}
    axes = place.subplots(len(rows), columns, squeeze=False, gridspec_kw={**spaces, "wspace": 0.1})
    place.suptitle(title, fontsize=11, color=color, y=0.975, va="top")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.axis("off")
    if not chosen:
        axes[len(rows) // 2, columns // 2].text(0.5, 0.5, "none", ha="center", va="center", fontsize=12, color=INK)
        return
    for line, (text, images, guesses, wrong) in zip(axes, rows, strict=True):
        line[0].text(-0.15, 0.5, text, transform=line[0].transAxes, ha="right", va="center", fontsize=9, color=INK)
        for axis, i in zip(line, chosen, strict=False):
            right = int(guesses[i]) == int(labels[i])
            axis.imshow(images[i].permute(1, 2, 0).clamp(0, 1).cpu().float(), interpolation="nearest")
            axis.set_title(classes[int(guesses[i])], fontsize=9, pad=2, color=RIGHT if right else WRONG)
            if wrong is not None:
                note = f"{int(wrong[i])}/{total} wrong"
                axis.text(0.5, -0.03, note, transform=axis.transAxes, ha="center", va="top", fontsize=8, color=INK)


if __name__ == "__main__":
    from lgap_bench.runtime.errors import one_line_errors

    one_line_errors(main)
