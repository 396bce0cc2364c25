"""Every file that is written, written whole or not at all; and one process at a time where two would write the same."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

FULL = (errno.ENOSPC, errno.EDQUOT)  # no space left, on the disk or of the user's share


def write(path: Path, save: Callable[[IO[bytes]], object]) -> None:
    """Let `save` fill a file beside `path`, force it to the disk and put it in place: readers never see half a file.

    A kill leaves `<name>.<process>.part`, which `tidy` removes; an error (a full disk) leaves nothing
    and names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
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
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"{key}={folder} cannot be written ({reason}): choose another folder with outputs=..."
        ) from None


def tidy(folder: Path) -> None:
    """Remove what kills have left of files that were being written below a folder. Call it under the folder's lock."""
    for part in folder.rglob("*.part"):
        with suppress(OSError):  # somebody else tidies the same folder
            part.unlink()


def content_id(content: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def locked(outputs: Path, name: str, what: str) -> Iterator[None]:
    """Hold `outputs/locks/<name>.lock` while the block runs; whoever comes second waits, says so, and looks again.

    The lock is the operating system's (`flock`), so it ends with the process that holds it, however that dies. On
    several machines it needs a file system that carries `flock` (NFS 4, Lustre and GPFS do where it is switched on).
    """
    from filelock import FileLock, Timeout

    folder = outputs / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.lock"
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{what}: another process is at it, waiting for its result", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
        # Only after success: whoever waits on the file that is gone, and whoever makes a new one, find the result made.
        file.unlink(missing_ok=True)
    finally:
        lock.release()
    with suppress(OSError):  # not empty: others hold locks
        folder.rmdir()
