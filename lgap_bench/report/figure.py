"""The one set-up of every figure: canvas, colours, sizes, intervals as bars, the legend outside the plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgap_bench.runtime import files

COLORS = ("#1b7837", "#2166ac", "#b8860b", "#b2182b", "#762a83", "#e08214", "#000000")
RIGHT, WRONG, INK, FAINT = "#1b7837", "#b2182b", "#222222", "#999999"
DPI = 110
SMALL = 8  # points of legends and tick labels


def canvas(width: float, height: float, dpi: int = DPI, constrained: bool = True) -> Any:
    """An empty figure, inches; no window and no global state. Grids of pictures lay themselves out: `constrained=False`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), dpi=dpi, layout="constrained" if constrained else None)
    FigureCanvasAgg(drawn)
    return drawn


def panels(count: int, width: float = 5.2, height: float = 3.6, share: bool = True) -> tuple[Any, Sequence[Any]]:
    """A figure of `count` plots beside one another and its axes, with one y-axis between them where `share`."""
    drawn = canvas(width * count, height)
    return drawn, list(drawn.subplots(1, count, sharey=share, squeeze=False)[0])


def accuracies(
    axis: Any, x: Sequence[float], lines: Sequence[Mapping[str, Any]], label: str, value: str = "robust", **style: Any
) -> None:
    """Markers at `robust` (or another `value`), with bars from `robust_low` to `robust_high`."""
    middle = [line[value] for line in lines]
    # A bootstrap's interval need not hold the number itself.
    below = [max(line[value] - line[f"{value}_low"], 0) for line in lines]
    above = [max(line[f"{value}_high"] - line[value], 0) for line in lines]
    axis.errorbar(x, middle, [below, above], label=label, capsize=2, **{"marker": "o", "markersize": 4, **style})


def legend(drawn: Any, title: str = "", columns: int = 4) -> None:
    """One legend for all plots above them, every name once: a legend inside a plot hides points."""
    named: dict[str, Any] = {}
    for axis in drawn.axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    place = "outside upper center"
    drawn.legend(named.values(), named, loc=place, ncols=min(len(named), columns), fontsize=SMALL, title=title or None)


def save(drawn: Any, path: Path, words: Mapping[str, str] | None = None) -> Path:
    """Write a PNG, with `words` of its own in it; a figure without a layout engine is cut to what it shows."""
    box = "tight" if drawn.get_layout_engine() is None else None
    files.write(path, lambda stream: drawn.savefig(stream, format="png", bbox_inches=box, metadata=dict(words or {})))
    return path
