"""A run's `.wandb` file, read and written: W&B's own writer names the folders of this machine in it, and sends them.

After a header of 7 bytes the file is LevelDB's log: blocks of 32 KiB, in them parts of records, each with its checksum, length and
kind (1 whole, 2 first, 3 middle, 4 last). A record is a protobuf message of wandb's.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

HEADER = 7  # of the file, and of each part
BLOCK = 32 * 1024
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read(file: Path) -> Iterator[bytes]:
    """The records of a file. Raises ValueError if a part's checksum is not its own; a tail that a kill has cut is left out."""
    data, at, record = file.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:  # padding
            at += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + HEADER : at + HEADER + length]
        if len(part) < length:
            return
        if checksum != _checksum(kind, part):
            raise ValueError(f"{file} is not what W&B writes: its parts do not have their checksums")
        record = part if kind in (WHOLE, FIRST) else record + part
        at += HEADER + length
        if kind in (WHOLE, LAST):
            yield record


def write(file: Path, header: bytes, records: Iterable[bytes]) -> None:
    """A file of these records; `header` is the first `HEADER` bytes of another one."""
    out = bytearray(header)
    for record in records:
        rest, first = record, True
        while first or rest:
            left = BLOCK - len(out) % BLOCK
            if left < HEADER:
                out += bytes(left)
                continue
            part, rest = rest[: left - HEADER], rest[left - HEADER :]
            kind = (WHOLE if first else LAST) if not rest else (FIRST if first else MIDDLE)
            out += struct.pack("<IHB", _checksum(kind, part), len(part), kind) + part
            first = False
    file.write_bytes(out)


def _checksum(kind: int, part: bytes) -> int:
    return zlib.crc32(part, zlib.crc32(bytes([kind]))) & 0xFFFFFFFF
