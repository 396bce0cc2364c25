"""How sure the classifier is of the right class along a purification, clean and attacked: as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.record import Record
from lgap_bench.report import figure

COLORS = {"clean": figure.RIGHT, "attacked": figure.WRONG}


@dataclass(frozen=True)
class Along:
    """One record's confidences, (images, states) in [0, 1] by `clean` and `attacked`; the first state is the image itself."""

    record: str
    title: str
    confidence: dict[str, NDArray[np.float32]]


def paths(found: Sequence[tuple[Record, str]]) -> list[Along]:
    """Of every record that kept them, in the given order."""
    made = []
    for record, title in found:
        held = record.pictures()
        known = {name: held[f"confidence_{name}"] for name in COLORS if f"confidence_{name}" in held}
        if known:
            made.append(Along(record.folder.name, title, known))
    return made


def draw(each: Along) -> Any:
    """A thin line per image, a thick one for their mean."""
    drawn, (axis,) = figure.panels(1, 6.0, 2.8)
    for name, values in each.confidence.items():
        places = np.arange(values.shape[1])
        axis.plot(places, values.T, color=COLORS[name], lw=0.6, alpha=0.5)
        axis.plot(places, values.mean(0), color=COLORS[name], lw=2, label=f"{name}, mean of {len(values)}")
    steps = next(iter(each.confidence.values())).shape[1]
    ticks = sorted({0, 1, *np.linspace(1, steps - 1, min(steps - 1, 6)).round().astype(int).tolist()})
    axis.set_xticks(ticks, ["image", "begins", *(str(tick - 1) for tick in ticks[2:])], fontsize=figure.SMALL)
    axis.set(ylim=(-0.02, 1.02), xlabel="steps of the purification", ylabel="p(right class)")
    figure.legend(drawn)
    return drawn
