"""Images in parquet files as the hub stores them: encoded images, labels, and the classes' names in the schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from lgap_bench.dataset.images import Bytes, read_rgb
from lgap_bench.dataset.npz import Stored, require_once

IMAGE = ("img", "image")
INDEX = ("index", "idx")


def read_parquet(files: Sequence[Path], labels: Sequence[str], key: str) -> Stored:
    """All rows of some files, one after the other: a column `img` or `image` of encoded images, one of the `labels` columns.

    Images are decoded to bytes at once, so this is for small ones; they have to be of one size. An optional column `index`
    says each image's place in the whole data set. Raises ValueError naming the file and what it lacks.
    """
    tables = [_table(file, labels, key) for file in files]
    pixels: list[Any] = []
    numbers: list[Any] = []
    index: list[int] = []
    for file, (table, names) in zip(files, tables, strict=True):
        for row, cell in enumerate(table.column(names["image"]).to_pylist()):
            pixels.append(_decoded(cell, f"{file}, row {row}"))
            if pixels[-1].shape != pixels[0].shape:
                raise ValueError(
                    f"image {file}, row {row} is {pixels[-1].shape[:2]} and not {pixels[0].shape[:2]} as the first: resize it"
                )
        numbers += table.column(names["labels"]).to_pylist()
        index += table.column(names["index"]).to_pylist() if "index" in names else []
    if not pixels:
        raise ValueError(f"{key}={files[0]} holds no row: download it again")
    if not all(isinstance(number, int) for number in numbers):
        raise ValueError(f"{key}={files[0]}: labels are not whole numbers: give the column of class numbers")
    found = np.asarray(index, dtype=np.int64) if index else None
    if found is not None and len(found) != len(pixels):
        raise ValueError(f"{key}={files[0]} has a column index, and other files have none: give it to all or to none")
    require_once(found, f"{key}={files[0]}")
    classes = _classes(*tables[0])
    return Stored(Bytes(np.stack(pixels)), np.asarray(numbers, dtype=np.int64), found, classes)


def _table(file: Path, labels: Sequence[str], key: str) -> tuple[Any, dict[str, str]]:
    """A file's table, and what its image, label and index columns are called."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        held = parquet.ParquetFile(file).schema_arrow.names
        names = {
            what: name
            for what, known in (("image", IMAGE), ("labels", labels), ("index", INDEX))
            if (name := next((each for each in known if each in held), None))
        }
        for what, known in (("image", IMAGE), ("labels", labels)):
            if what not in names:
                raise ValueError(
                    f"{key}={file} has the columns {', '.join(held)} and none called {' or '.join(known)}: give the hub's files of this data set"
                )
        return parquet.read_table(file, columns=list(names.values())), names
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{key}={file} is no parquet file ({reason}): download it again") from None


def _decoded(cell: Any, name: str) -> Any:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes):
        raise ValueError(
            f"image {name} is not in the file ({type(content).__name__}): take files that embed their images"
        )
    return np.asarray(read_rgb(BytesIO(content), name))


def _classes(table: Any, names: dict[str, str]) -> tuple[str, ...] | None:
    """The label column's class names, which the hub's `datasets` library writes into the schema."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[names["labels"]]["names"])
    except (KeyError, TypeError, ValueError):
        return None
