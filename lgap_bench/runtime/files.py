"""Every file that is written, written whole or not at all, while others on this machine or another write beside it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.runtime.worker import read_worker, this_worker

STALE = 90.0  # seconds without a sign of life after which a worker on another machine counts as gone
FULL = (errno.ENOSPC, errno.EDQUOT)  # no space left, on the disk or of the user's share


def write(path: Path, save: Callable[[IO[bytes]], object]) -> None:
    """Let `save` fill a file beside `path`, force it to the disk and put it in place: readers never see half a file.

    A kill leaves `<name>,<worker>.part`, which `tidy` removes; an error (a full disk) leaves nothing
    and names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name},{this_worker().name}.part")
    try:
        with part.open("wb") as stream:
            save(stream)
            stream.flush()
            os.fsync(stream.fileno())  # a rename may reach the disk before the content does
        os.replace(part, path)
    except OSError as error:
        if error.errno in FULL:  # a failed write does not say which file it was
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Text in UTF-8."""
    write(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """Indented JSON with sorted keys, so that equal contents are equal files."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """A config as Hydra would read it."""
    from omegaconf import OmegaConf

    write_text(path, OmegaConf.to_yaml(OmegaConf.create(dict(content))))


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """One array."""
    write(path, lambda stream: np.save(stream, array))


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]], compressed: bool = False) -> None:
    """Several arrays by name."""
    save: Any = np.savez_compressed if compressed else np.savez
    write(path, lambda stream: save(stream, **arrays))


def read_npz(file: Path, then: str) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file. Raises ValueError in one line if it is cut off or something else.

    `then` says what follows once the file is deleted.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file} is damaged ({one_line(error)}): delete this file, {then}") from None


def has_array(file: Path, name: str) -> bool:
    """Whether an .npz file holds an array of this name, without reading it; of a damaged one True: its reader says so."""
    try:
        with zipfile.ZipFile(file) as arrays:
            return f"{name}.npy" in arrays.namelist()
    except (OSError, zipfile.BadZipFile):
        return True


def one_line(error: Exception) -> str:
    """What an error says, or else its name."""
    return " ".join(str(error).split()) or type(error).__name__


def write_parquet(path: Path, columns: Mapping[str, list[Any]]) -> None:
    """A table of columns of equal length."""
    import pyarrow
    import pyarrow.parquet as parquet

    write(path, lambda stream: parquet.write_table(pyarrow.table(dict(columns)), stream))


def writable(folder: Path, key: str = "outputs") -> None:
    """Make the folder and raise ValueError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clock(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"{key}={folder} cannot be written ({reason}): choose another folder with outputs=..."
        ) from None


def clock(folder: Path) -> float:
    """The time now of the file system that a folder is on, which is the clock of its files' times.

    It makes a file and removes it, so a client of a network file system looks at the folder anew: what it had in
    memory of the folder's files, or of their absence, counts no longer. Raises OSError where nothing can be written.
    """
    probe = folder / f".probe,{this_worker().name}"
    probe.touch()
    os.utime(probe)  # one that a kill has left is of an earlier time
    now = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    return now


def left_behind(path: Path, now: float) -> bool:
    """Whether who made a file or folder named after him is gone; elsewhere: whether it was not touched for 90 seconds.

    `now` is the file system's `clock`. Raises OSError if it is not there.
    """
    worker, here = read_worker(path.name), this_worker()
    if worker is not None and (worker.host, worker.kernel) == (here.host, here.kernel) and worker.started:
        return worker.gone  # however long the disk keeps it waiting
    return now - path.stat().st_mtime > STALE


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files that a pattern finds; those of a folder that another worker removes meanwhile are not there."""
    try:
        return sorted(folder.glob(pattern))
    except FileNotFoundError:
        return []


def tidy(folder: Path) -> None:
    """Remove what kills have left of files that were being written below a folder; what the living write stays."""
    parts = [*matching(folder, "**/*.part"), *matching(folder, "**/.probe,*")]
    now = clock(folder) if parts else 0.0
    for part in parts:
        with suppress(OSError):  # put in place by now, or somebody else tidies the same folder
            if left_behind(part, now):
                part.unlink()


def content_id(content: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
