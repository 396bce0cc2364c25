"""Clean, attacked and purified images of records as pictures inside a page, no more than it can bear."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.record import Record
from lgap_bench.report.grid import first_draw, lines_of

COLUMNS = 4  # images of each record
BYTES = 1_500_000  # of all pictures of a page, which with all tables of the papers is to stay below 5 MB


@dataclass(frozen=True)
class Picture:
    """One image; `alt` says what it is, `right` whether it was taken for what it is (None: nobody was asked)."""

    data: str
    alt: str
    taken_for: str
    right: bool | None
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class Strip:
    """A row of pictures: `clean`, `attacked, purified`."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Album:
    """The pictures of one record."""

    record: str
    title: str
    strips: Sequence[Strip]


def albums(found: Sequence[tuple[Record, str]], room: int = BYTES) -> tuple[list[Album], int]:
    """Records with their titles as albums, as many as fit into `room` bytes, and how many were left out.

    Large images get fewer columns before a record is left out; a record without pictures is left out too.
    """
    made: list[Album] = []
    lost = 0
    for record, title in found:
        for columns in (COLUMNS, 2, 1):
            held = _album(record, title, columns)
            size = sum(len(each.data) for strip in held.strips for each in strip.pictures)
            if held.strips and size <= room:
                made.append(held)
                room -= size
                break
        else:
            lost += 1
    return made, lost


def data_uri(image: NDArray[Any]) -> str:
    """An image (H, W, C) in [0, 1] as a PNG inside an address."""
    from PIL import Image

    pixels = (image.clip(0, 1) * 255).round().astype(np.uint8)
    grey = pixels.shape[-1] == 1 or bool((pixels == pixels[..., :1]).all())
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _album(record: Record, title: str, columns: int) -> Album:
    try:
        held = record.pictures()
    except ValueError:  # none kept, or damaged: the numbers stand without them
        return Album(record.folder.name, title, ())
    samples, classes = record.samples(), record.classes()
    strips = []
    for line in lines_of(record):
        if line.picture not in held:
            continue
        known = bool(line.column) and line.column in samples
        guesses, right = first_draw(samples, line.column) if known else (None, None)
        captions = samples.get(f"{line.picture}_caption")
        row = []
        for place, image in enumerate(held[line.picture][:columns]):
            name = "" if guesses is None else classes[guesses[place]]
            true = None if right is None else bool(right[place])
            alt = f"{line.title.replace(chr(10), ' ')} image {place + 1}"
            alt += f", taken for {name}, {'right' if true else 'wrong'}" if name else ""
            height, width = image.shape[:2]
            said = (captions[place] or "(empty caption)") if captions else ""
            row.append(Picture(data_uri(image), alt, name, true, said, width, height))
        strips.append(Strip(line.title.replace("\n", " "), row))
    return Album(record.folder.name, title, strips if any(strip.pictures for strip in strips) else ())
