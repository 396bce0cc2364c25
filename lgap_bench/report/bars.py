"""A paper's bar chart: a table's rows side by side, published values beside them (conditioned denoising, figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lgap_bench.report import figure


def bars(rows: Sequence[Mapping[str, Any]], value: str) -> Any:
    """One bar per measured row, from its first the clean images' too; 95 % intervals, and a mark at each published value."""
    held = [row for row in rows if value in row and not isinstance(row[value], str)]
    clean = {"row": "clean, not purified", value: held[0][f"natural_{value}"]} if held else {}
    for end in ("low", "high"):
        if held and f"natural_{value}_{end}" in held[0]:
            clean[f"{value}_{end}"] = held[0][f"natural_{value}_{end}"]
    if held:
        clean[f"paper_{value}"] = held[0].get(f"paper_natural_{value}")
    drawn, (axis,) = figure.panels(1, width=8.0, height=0.8 + 0.36 * (len(held) + 1))
    for place, row in enumerate([clean, *held] if held else []):
        middle = float(row[value])
        ends = [[max(middle - row.get(f"{value}_low", middle), 0)], [max(row.get(f"{value}_high", middle) - middle, 0)]]
        axis.barh(place, middle, xerr=ends, color=figure.COLORS[0], alpha=0.75, capsize=2)
        published = row.get(f"paper_{value}")
        if published is not None:
            label = "published" if place == 0 else None
            axis.plot(float(published), place, marker="D", color=figure.WRONG, ls="none", label=label)
    axis.set_yticks(range(len(held) + 1 if held else 0), [row["row"] for row in ([clean, *held] if held else [])])
    axis.invert_yaxis()
    axis.set(xlabel=f"{value}, %", xlim=(0, 101))
    figure.legend(drawn, columns=1)
    return drawn
