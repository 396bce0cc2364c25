"""SHA-256 of files and folders: what identifies weights and data. A large file is read once, then known by size and time.

Digests of large files are kept in the user's cache folder (LGAP_BENCH_CACHE, else XDG_CACHE_HOME, else ~/.cache), which may
be deleted at any time. LGAP_BENCH_REHASH=1 reads every file again: for files changed by something that sets times back.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from lgap_bench.runtime.files import content_id, write_json

LARGE = 2**24  # bytes; what is smaller is read in less time than a note about it takes
SETTLED = 2 * 10**9  # nanoseconds; a file changed more recently may change again within its time's resolution

Known = list[Any]  # [size, time, digest]


def sha256(file: Path) -> str:
    """SHA-256 of a file, remembered while its size and time stay the same; of a large one across processes too."""
    stat = file.stat()
    return _sha256(file, stat.st_size, stat.st_mtime_ns)


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder of data, hidden ones left out.

    A file whose size and time are those of the last look is not read again.
    """
    note = _note("folders", folder)
    known, fresh, digest = _read(note), {}, hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if not file.is_file() or any(part.startswith(".") for part in name.split("/")):
            continue
        stat = file.stat()
        held = known.get(name)
        same = held is not None and held[:2] == [stat.st_size, stat.st_mtime_ns]
        fresh[name] = held if same and held is not None else [stat.st_size, stat.st_mtime_ns, sha256(file)]
        digest.update(f"{name} {fresh[name][2]}\n".encode())
    if fresh != known:
        _keep(note, fresh)
    return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _sha256(file: Path, size: int, changed: int) -> str:
    note = _note("files", file) if size >= LARGE else None
    held = None if note is None else _read(note).get(file.name)
    if held is not None and held[:2] == [size, changed]:
        return str(held[2])
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if note is not None and time.time_ns() - changed > SETTLED:
        _keep(note, {file.name: [size, changed, found]})
    return found


def _note(kind: str, path: Path) -> Path:
    """Where a file's or folder's digests are kept."""
    base = os.environ.get("LGAP_BENCH_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "lgap-bench"
    # A folder's notes keep the name that they had before files had some too.
    name = content_id({"folder" if kind == "folders" else "file": str(path.resolve())})
    return Path(base).expanduser() / kind / f"{name}.json"


def _read(note: Path) -> dict[str, Known]:
    """The digests in a note, by name; none where it is missing or damaged, or all is to be read again."""
    if os.environ.get("LGAP_BENCH_REHASH", "") not in ("", "0"):
        return {}
    try:
        held = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    whole = isinstance(held, dict) and all(isinstance(each, list) and len(each) == 3 for each in held.values())
    return held if whole else {}


def _keep(note: Path, digests: dict[str, Known]) -> None:
    with contextlib.suppress(OSError):  # a note that cannot be written costs time alone
        write_json(note, digests)
