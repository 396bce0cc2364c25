"""Numbered results on the disk: files of a few hundred of them each, added one after another while work goes on.

<folder>/00001.npz   `head`: whose it is, and per number what it answers; arrays `<number>.<k>` in the order of its entry
<folder>/00002.npz   a later file counts where two have the same number
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.runtime.files import one_line, write_npz

# Whatever zip and numpy say of bytes that are not theirs; RuntimeError is their word for encrypted.
BROKEN = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Entry:
    """One result.

    Attributes:
        kind: which kind of call it answers.
        digest: of what the call was given.
        seconds: that the call took.
        arrays: the result; not yet read where the entry comes from an index.
        strides: in elements, of each array: sums over a tensor run in the order in which it lies in memory.
        facts: what else belongs to it, plain data.
    """

    kind: str
    digest: str
    seconds: float
    arrays: tuple[NDArray[Any], ...] = ()
    strides: tuple[tuple[int, ...], ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


class Segments:
    """The files of one folder, whose numbers rise from file to file.

    Args:
        folder: made with the first file.
        stamp: whose results they are; a file with another stamp is refused.

    Attributes:
        refused: why files were deleted when the folder was opened, in words; None where all were whole.
        size: bytes of all files.
    """

    def __init__(self, folder: Path, stamp: str) -> None:
        self.folder, self.stamp = folder, stamp
        self.refused: str | None = None
        self.size = self.last = 0  # bytes, and the number of the last file
        self.index: dict[int, tuple[int, Entry]] = {}
        self.dropped: int | None = None  # results from this number on no longer count, as the next file will say
        self._open: tuple[int, Any] | None = None
        files = sorted(folder.glob("*.npz")) if folder.is_dir() else []
        for place, file in enumerate(files):
            try:
                self._read_head(file)
            except BROKEN as error:
                self.refused = f"{file}: {one_line(error)}"
                for later in files[place:]:  # what follows a gap may not be counted on
                    later.unlink(missing_ok=True)
                break

    def get(self, number: int) -> Entry | None:
        """The result of that number, or None. Raises ValueError in one line if its file is damaged."""
        if number not in self.index:
            return None
        place, entry = self.index[number]
        try:
            held = self._file(place)
            arrays = tuple(held[f"{number}.{k}"] for k in range(len(entry.strides)))
        except BROKEN as error:
            raise ValueError(f"{self._path(place)} is damaged ({one_line(error)})") from None
        return Entry(entry.kind, entry.digest, entry.seconds, arrays, entry.strides, entry.facts)

    def write(self, entries: Mapping[int, Entry]) -> None:
        """Add one file. Raises OSError where the disk is full: then there is no such file."""
        facts = {str(number): {**asdict(entry), "arrays": None} for number, entry in entries.items()}
        head = json.dumps({"stamp": self.stamp, "from": self.dropped, "entries": facts})
        arrays = {f"{n}.{k}": array for n, entry in entries.items() for k, array in enumerate(entry.arrays)}
        file = self._path(self.last + 1)
        write_npz(file, {"head": np.frombuffer(head.encode(), np.uint8), **arrays})
        self.last += 1
        self.size += file.stat().st_size
        self.dropped = None

    def drop(self, number: int) -> None:
        """Results from that number on count no longer."""
        self.index = {each: held for each, held in self.index.items() if each < number}
        self.dropped = number if self.dropped is None else min(self.dropped, number)

    def close(self) -> None:
        """Let go of the file that was read last."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _read_head(self, file: Path) -> None:
        place = int(file.stem)
        with np.load(file, allow_pickle=False) as held:
            head = json.loads(held["head"].tobytes())
        if head["stamp"] != self.stamp:
            raise ValueError(f"it belongs to {head['stamp']}")
        found = {int(number): (place, _entry(facts)) for number, facts in head["entries"].items()}
        if head["from"] is not None:
            self.index = {number: held for number, held in self.index.items() if number < head["from"]}
        self.index |= found
        self.last, self.size = place, self.size + file.stat().st_size

    def _file(self, place: int) -> Any:
        """The file of that number; one at a time stays open, since results are read in their order."""
        if self._open is None or self._open[0] != place:
            self.close()
            self._open = (place, np.load(self._path(place), allow_pickle=False))
        return self._open[1]

    def _path(self, place: int) -> Path:
        return self.folder / f"{place:05d}.npz"


def _entry(facts: Mapping[str, Any]) -> Entry:
    strides = tuple(tuple(int(step) for step in each) for each in facts["strides"])
    return Entry(str(facts["kind"]), str(facts["digest"]), float(facts["seconds"]), (), strides, dict(facts["facts"]))
