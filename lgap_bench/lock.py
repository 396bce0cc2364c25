"""One process at a time: two jobs that ask for the same weights or the same cell make it once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(outputs: Path, name: str, what: str) -> Iterator[None]:
    """Hold `outputs/locks/<name>.lock` while the block runs; whoever comes second waits, says so, and looks again.

    The lock is the operating system's (`flock`), so it ends with the process that holds it, however that dies. On
    several machines it needs a file system that carries `flock` (NFS 4, Lustre and GPFS do where it is switched on).
    """
    from filelock import FileLock, Timeout

    folder = outputs / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{what}: another process is at it, waiting for its result", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
