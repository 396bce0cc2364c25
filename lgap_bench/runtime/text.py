"""Text files that people write for a cell: read whole, or refused in one line that names key, file and mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_text(file: str, key: str) -> str:
    """UTF-8, with or without a byte order mark. Another encoding is refused: guessed words would go into captions."""
    path = Path(file).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{key}={file} is not UTF-8 (line {line}): save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"{key}={file} cannot be read ({error.strerror}): give the path of a text file") from None


def read_lines(file: str, key: str) -> list[str]:
    """One word or phrase per line, without blanks around it; blank lines at the end do not count.

    Raises ValueError for a blank line between others, which would be a class without a name.
    """
    lines = [line.strip() for line in read_text(file, key).rstrip().splitlines()]
    if "" in lines:
        raise ValueError(f"{key}={file}: line {lines.index('') + 1} is blank: write one class name per line")
    return lines


def read_captions(file: str, key: str) -> dict[int, str]:
    """A JSON object of sample id -> sentence; an empty sentence is one. Raises ValueError naming the first other entry."""
    mend = 'write {"17": "a photo of a cat", ...}'
    try:
        entries = json.loads(read_text(file, key), object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise ValueError(f"{key}={file} is no JSON object of sample id -> caption ({error}): {mend}") from None
    if not isinstance(entries, _Pairs):
        raise ValueError(f"{key}={file} is no JSON object of sample id -> caption (it is a list or a value): {mend}")
    captions: dict[int, str] = {}
    for sample, caption in entries:
        if not sample.isdecimal():
            raise ValueError(f"{key}={file}: {sample!r} is no sample id: {mend}")
        if not isinstance(caption, str):
            raise ValueError(f"{key}={file}: the caption of sample {sample} is no sentence ({_kind(caption)}): {mend}")
        if int(sample) in captions:
            raise ValueError(f"{key}={file}: sample {sample} has two captions: keep one")
        captions[int(sample)] = caption
    return captions


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it stands in the file: a dictionary would hide a key that stands there twice."""


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", _Pairs: "an object"}
    return "null" if value is None else kinds[type(value)]
