"""Outlines of COCO's objects, polygons or RLE: checked, and made to masks by pycocotools."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Outline = (
    Any  # a list of polygons x, y, x, y, ... in pixels, or RLE: {size: [height, width], counts: runs or their text}
)


def mask(outline: Outline, width: int, height: int) -> NDArray[np.uint8]:
    """An outline as (height, width) of 0 and 1; what lies outside the image is cut off."""
    from pycocotools import mask as rle

    if isinstance(outline, list):
        return rle.decode(rle.merge(rle.frPyObjects(_areas(outline), height, width)))
    counted = isinstance(outline["counts"], list)
    return rle.decode(rle.frPyObjects(outline, height, width) if counted else outline)


def inside(outline: Outline, width: int, height: int, what: str) -> bool:
    """Whether any of an outline is in the image. Raises ValueError, naming `what`, for neither polygons nor a whole RLE."""
    if isinstance(outline, dict):
        _check_rle(outline, width, height, what)
        return True
    whole = isinstance(outline, list) and outline
    if not whole or not all(numbers(each) and len(each) % 2 == 0 for each in outline):
        raise ValueError(f"{what}: its polygon is no list of x, y, x, y, ...: mend it or take the official file")
    return any(
        min(p[::2]) < width and max(p[::2]) > 0 and min(p[1::2]) < height and max(p[1::2]) > 0 for p in _areas(outline)
    )


def _areas(polygons: list[list[float]]) -> list[list[float]]:
    """The polygons without points and lines, of which pycocotools takes four numbers for a box."""
    return [each for each in polygons if len(each) >= 6]


def numbers(values: Any) -> bool:
    """Whether something is a list of finite numbers."""
    if not isinstance(values, list):
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def _check_rle(outline: Mapping[str, Any], width: int, height: int, what: str) -> None:
    size, counts = outline.get("size"), outline.get("counts")
    if size != [height, width]:
        raise ValueError(
            f"{what}: its mask is of {size} and the image of {[height, width]} (height, width): take the official file"
        )
    runs: Any = _runs(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(isinstance(run, int) and run >= 0 for run in runs)
    if not whole or sum(runs) != width * height:
        raise ValueError(f"{what}: its RLE is damaged, its runs do not fill the image: take the official file")


def _runs(text: str) -> list[int] | None:
    """The runs of a compressed RLE, None if it breaks off or holds other characters.

    pycocotools decodes a text whose runs end too early without a word. Five bits per character from 48 on, the lowest
    first, 32 says that more follow; from the fourth on, a run is told by its difference to the one two before.
    """
    runs: list[int] = []
    value, place = 0, 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << 5 * place
        place += 1
        if bits & 32:
            continue
        if bits & 16:  # a negative difference
            value -= 1 << 5 * place
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, place = 0, 0
    return None if place else runs
