"""Chunks, which are arrays by name, as the columns of one table."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Chunk = dict[str, NDArray[Any]]


def table(chunks: list[Chunk]) -> dict[str, list[Any]]:
    """Columns of all chunks, one value or list per sample: arrays are (B,), (K, B) or (K, B, L)."""
    columns = {}
    for name in dict.fromkeys(name for chunk in chunks for name in chunk):
        if name.startswith(("picture_", "image_", "probe_")) or name in (
            "seconds",
            "processor_seconds",
            "peak_memory_mib",
            "notes",
        ):
            continue
        columns[name] = [row for chunk in chunks for row in _rows(chunk, name)]
    return columns


def _rows(chunk: Chunk, name: str) -> list[Any]:
    """One value per sample; nothing where a chunk lacks the column (a library's own count, when all samples failed)."""
    if name not in chunk:
        return [None] * len(chunk["id"])
    array = chunk[name]
    return (array if array.ndim == 1 else array.swapaxes(0, 1)).tolist()
