"""docs/views.png: image -> purifier -> classifier, and what each view lets the attacker differentiate.

python -m scripts.figures.views [file]
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

OUT = Path("docs/views.png")
EXACT, WRONG, RUNS, UNSEEN = "#2f6db5", "#bf6a12", "#d5d9de", "#f6f6f6"
LIGHT = (RUNS, UNSEEN)  # boxes with dark letters
COLUMNS = {"captioner": (2.35, 1.6), "diffusion model": (4.3, 3.1), "classifier": (7.85, 2.2)}  # left edge, width
# view -> what it does to captioner, diffusion model and classifier, as (colour, text)
VIEWS: dict[str, tuple[tuple[str, str], ...]] = {
    "blind": ((UNSEEN, "unknown"), (UNSEEN, "unknown"), (EXACT, "exact gradient")),
    "bpda": ((RUNS, "runs"), (WRONG, "backward: output = input"), (EXACT, "exact gradient")),
    "surrogate": ((RUNS, "runs"), (WRONG, "gradient of fewer steps"), (EXACT, "exact gradient")),
    "adjoint": ((RUNS, "runs"), (WRONG, "adjoint method, biased"), (EXACT, "exact gradient")),
    "detached": ((RUNS, "runs"), (WRONG, "exact, but for the guidance"), (EXACT, "exact gradient")),
    "full": ((RUNS, "runs"), (EXACT, "exact gradient, every step"), (EXACT, "exact gradient")),
    "caption": ((EXACT, "its own loss"), (RUNS, "runs"), (RUNS, "runs")),
    "query": ((RUNS, "runs"), (RUNS, "runs"), (RUNS, "runs")),
}
MEANINGS = {
    EXACT: "exact gradient",
    WRONG: "a stand-in for the gradient",
    RUNS: "runs, no gradient",
    UNSEEN: "attacker does not know it",
}


def box(axes: Axes, left: float, bottom: float, width: float, height: float, colour: str, text: str, size: int) -> None:
    """A rounded box with a text in its middle."""
    style = "round,pad=0.02,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=style, fc=colour, ec="#8a8f96", lw=0.8))
    shade = "#222222" if colour in LIGHT or colour == "white" else "white"
    axes.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=size, color=shade)


def arrow(axes: Axes, start: float, end: float, height: float) -> None:
    """An arrow to the right."""
    ends = ((start, height), (end, height))
    axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=12, color="#444444", shrinkA=0, shrinkB=0))


def pipeline(axes: Axes, bottom: float) -> None:
    """The defense as it runs: image, purifier (captioner and diffusion model), classifier, label."""
    middle = bottom + 0.5
    axes.add_patch(Rectangle((2.2, bottom - 0.2), 5.35, 1.85, fc="#fbf7ec", ec="#b9ab83", lw=1, ls="--"))
    axes.text(4.88, bottom + 1.38, "purifier: makes a clean image of it", ha="center", va="center", fontsize=10)
    box(axes, 0.15, bottom, 1.5, 1, "white", "attacked image,\nmoved by ≤ eps", 9)
    for name, (left, width) in COLUMNS.items():
        note = {"captioner": "captioner\n(LGAP only)", "diffusion model": "diffusion model\nadds noise, takes it away"}
        box(axes, left, bottom, width, 1, "white", note.get(name, name), 9)
    arrow(axes, 1.67, 2.33, middle)
    arrow(axes, 3.97, 4.28, middle)
    arrow(axes, 7.42, 7.83, middle)
    arrow(axes, 10.07, 10.45, middle)
    axes.text(10.5, middle, "label", ha="left", va="center", fontsize=9)


def rows(axes: Axes, top: float) -> None:
    """One line of boxes for each view."""
    for place, (view, seen) in enumerate(VIEWS.items()):
        bottom = top - 0.62 * place
        axes.text(1.95, bottom + 0.24, view, ha="right", va="center", fontsize=10, family="monospace")
        for (left, width), (colour, text) in zip(COLUMNS.values(), seen, strict=True):
            box(axes, left, bottom, width, 0.46, colour, text, 9)


def legend(axes: Axes, bottom: float) -> None:
    """What the colours mean."""
    for place, (colour, text) in enumerate(MEANINGS.items()):
        left = 0.5 + 2.75 * place
        box(axes, left, bottom, 0.3, 0.24, colour, "", 8)
        axes.text(left + 0.42, bottom + 0.12, text, ha="left", va="center", fontsize=9)


def draw(out: Path) -> None:
    """Write the picture."""
    figure = Figure(figsize=(9.6, 6.4), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, 11.2), ylim=(0, 7.9), frame_on=False, xticks=[], yticks=[])
    pipeline(axes, 6.0)
    axes.text(0.15, 5.52, "view: what the attacker may differentiate", fontsize=10, va="center", weight="bold")
    rows(axes, 4.84)
    legend(axes, 0.02)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Software": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
