"""Chunks that several workers make together: each claims a chunk before it computes it, and passes over those of others."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lgap_bench.cell.config import Cell
from lgap_bench.record import Chunk, Record
from lgap_bench.runtime import lease
from lgap_bench.runtime.lease import LIMITS, Limits

Find = Callable[[int], Chunk | None]  # a finished chunk by its index
Make = Callable[[int], Chunk]  # compute it


def claim(cell: Cell, record: Record, index: int) -> Path:
    """Where the lease of a chunk is."""
    return lease.path(cell.outputs, f"{record.folder.name}-{index:05d}")


def nobody_at(cell: Cell, record: Record) -> bool:
    """Whether no living worker computes a chunk of the record; claims that the dead have left are removed."""
    return lease.clear(cell.outputs, f"{record.folder.name}-")


def shared(
    cell: Cell, record: Record, find: Find, make: Make, limits: Limits = LIMITS
) -> Iterator[tuple[int, Chunk, bool]]:
    """Every chunk of this call's share, once: its index, the chunk, and whether it was computed here.

    What another worker computes is looked at again once nothing else is left, and computed here if that worker ends without
    it. It ends early where others have made the record whole.
    """
    left, told = list(cell.share), False
    while left and not record.complete:
        before = len(left)
        for index in list(left):
            chunk, fresh = find(index), False
            if chunk is None:
                chunk, fresh = _claimed(cell, record, index, find, make, limits)
            if chunk is not None:
                left.remove(index)
                yield index, chunk, fresh
        if len(left) == before and not record.complete:
            if not told and (who := lease.holder(claim(cell, record, left[0]))) is not None:
                _say(f"{cell.title}: waiting for {_chunks(left)}, which another process computes ({who})")
                told = True
            time.sleep(limits.look)


def _claimed(
    cell: Cell, record: Record, index: int, find: Find, make: Make, limits: Limits
) -> tuple[Chunk | None, bool]:
    """A chunk computed and saved under its claim; the one that another has finished; or None while another is at it."""
    held = lease.take(claim(cell, record, index), limits)
    if held is None:
        return None, False
    try:
        record.refresh()  # another may have saved it since we looked
        if record.complete or (chunk := find(index)) is not None:
            return (None if record.complete else chunk), False
        chunk = make(index)
        if not held.held:
            _say(
                f"{cell.title}: this process was stopped for more than {limits.stale:.0f} s and another took over its chunk {index}: computed twice, with the same result"
            )
            if record.complete or (theirs := find(index)) is not None:
                return (None if record.complete else theirs), False
        record.save_chunk(index, chunk)
        return chunk, True
    finally:
        held.let_go()


def _chunks(indices: list[int]) -> str:
    return f"chunk{'s' if len(indices) > 1 else ''} {', '.join(str(index) for index in indices)}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
