"""The header of a safetensors file: its tensors' names, types and shapes, and whether the file is whole. Without torch."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

# How files begin that are saved under a checkpoint's name by mistake.
HEADS = {
    b"<": "an HTML or XML page, not a checkpoint",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"{": "a JSON file, not a checkpoint",
    b"\x1f\x8b": "a gzip archive, not a checkpoint",
}


@dataclass(frozen=True)
class Entry:
    """One tensor: its type in safetensors' words (`F32`, `F16`, `I64`) and its shape."""

    dtype: str
    shape: tuple[int, ...]


def other(file: Path) -> str | None:
    """What a file is by its first bytes, where these are not a checkpoint's; None where they may be."""
    with file.open("rb") as stream:
        head = stream.read(64).lstrip()
    return next((what for begin, what in HEADS.items() if head.startswith(begin)), None)


def read(file: Path) -> dict[str, Entry]:
    """Name -> entry of every tensor. Raises ValueError that says what is wrong with the file, without its name."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        if len(head) < 8:
            raise ValueError(f"{size} bytes long")
        (length,) = struct.unpack("<Q", head)
        if length > size - 8:
            raise ValueError(other(file) or "its header is cut off or not safetensors")
        try:
            header = json.loads(stream.read(length))
            held = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((int(entry["data_offsets"][1]) for entry in held.values()), default=0)
            found = {name: Entry(entry.get("dtype", ""), tuple(entry.get("shape", ()))) for name, entry in held.items()}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ValueError("its header is not safetensors") from None
    if size != 8 + length + end:
        raise ValueError(f"{size} bytes instead of {8 + length + end}")
    return found


def metadata(file: Path) -> dict[str, str]:
    """What a whole file says of itself beside its tensors."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return dict(json.loads(stream.read(length)).get("__metadata__") or {})


def damage(file: Path) -> str | None:
    """What is wrong with a safetensors file by its header: the length it promises against the length it has."""
    try:
        read(file)
    except ValueError as error:
        return str(error)
    except FileNotFoundError:  # a link of a cache whose blob is gone
        return "a link to a file that is not there"
    return None
