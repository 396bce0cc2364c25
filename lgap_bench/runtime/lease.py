"""One worker at a time where several would make the same: a lease on a shared file system, without `flock`.

A lease is a folder with one empty file in it, whose name says who holds it and bears a token that nobody had before:

    <outputs>/locks/<name>.lock/<host>,<kernel>,<pid>,<started>,<token>,<since>

All that is asked of the file system is that a rename is atomic, on one machine or over NFS:

    take      rename a folder of one's own, with the file in it, onto <name>.lock: that fails unless nobody holds it
    beat      touch the file every 10 seconds
    take over rename the holder's file to one's own. A rename names the token that was seen to be stale, so of two that try at
              once one succeeds, and a lease that has changed hands in the meantime stays where it is
    let go    unlink the file, which only its holder can name; then remove the folder, which only works while it is empty

A lease is stale once its holder has certainly ended (the same machine, and its pid is gone or another process has it), or
has not been touched for 90 seconds. Both times are the file system's, so clocks that differ between machines do not matter.
(An NFS client may remember the time of a file for 60 seconds: the limit lies above that and a beat.)

A holder that was stopped for longer than that (SIGSTOP, a suspended virtual machine) finds when it goes on that its file has
another name: `held` is False. Until it asks, two workers do the same work. That costs time and nothing else: results
are bitwise the same, and files are put in place whole.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lgap_bench.runtime.files import STALE, clock, left_behind, matching
from lgap_bench.runtime.worker import Worker, read_worker, this_worker

HELD = (errno.ENOTEMPTY, errno.EEXIST)  # a folder cannot be renamed onto one that is not empty
NEW = ".new,"  # what a folder is called before it is a lease
PATIENCE = 1.0  # seconds of waiting that are not worth a line


@dataclass(frozen=True)
class Limits:
    """How often a holder says that it lives, and how long the others believe it, in seconds; `look`: how often they look."""

    beat: float = 10.0
    stale: float = STALE
    look: float = 1.0


LIMITS = Limits()


@dataclass(frozen=True)
class Holder:
    """Who holds a lease; `since` in seconds of its own clock, as `time.time` counts."""

    worker: Worker
    since: float

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.worker.pid} on {self.worker.host}, since {since}"


class Lease:
    """A lease that this process holds, touched by a thread of its own until it is let go or lost."""

    def __init__(self, file: Path, beat: float) -> None:
        self.file = file
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._touch, args=(beat,), name=f"lease {file.parent.name}", daemon=True)
        self._thread.start()

    @property
    def held(self) -> bool:
        """Whether the lease is still this holder's: False once another took it over. Ask before what must not be done twice."""
        try:
            # Listing asks the server, where a look at the file alone may be answered from memory.
            return self.file.name in os.listdir(self.file.parent)
        except FileNotFoundError:
            return False

    def let_go(self) -> None:
        """Give it back; nothing is left of it. One that was lost is its new holder's, and stays."""
        self._ended.set()
        self._thread.join()
        with suppress(FileNotFoundError):
            self.file.unlink()
        for folder in (self.file.parent, self.file.parent.parent):
            with suppress(OSError):  # not empty: held by another, other leases
                folder.rmdir()

    def _touch(self, beat: float) -> None:
        while not self._ended.wait(beat):
            try:
                os.utime(self.file)  # the file system's own time
            except FileNotFoundError:  # lost
                return
            except OSError:  # a server that does not answer now may do so at the next beat
                continue


def path(outputs: Path, name: str) -> Path:
    """Where the lease of this name is, held or not."""
    return outputs / "locks" / f"{name}.lock"


def take(place: Path, limits: Limits = LIMITS, worker: Worker | None = None) -> Lease | None:
    """The lease at this place (see `path`), or None while another live worker holds it; never waits.

    `worker` is whom its name shall say: this process.
    """
    name = f"{(worker or this_worker()).name},{secrets.token_hex(6)},{int(time.time())}"
    for _ in range(100):  # somebody else takes or leaves it between two looks
        taken = _try(place, name, limits)
        if taken is not None:
            return Lease(place / name, limits.beat) if taken else None
    return None


@contextmanager
def lease(
    outputs: Path, name: str, what: str, news: Callable[[], str | None] = lambda: None, limits: Limits = LIMITS
) -> Iterator[Lease]:
    """Hold the lease `name` below an outputs folder while the block runs; whoever comes second waits and says for whom.

    `what` is being made, for that line. `news` is asked while waiting: what it answers is said when it changes.
    """
    place = path(outputs, name)
    began, told, heard = time.monotonic(), False, None
    while (taken := take(place, limits)) is None:
        if not told and time.monotonic() - began >= min(PATIENCE, limits.look):
            _say(f"{what}: another process is at it ({holder(place) or 'unknown'}), waiting for its result")
            told = True
        if told and (found := news()) not in (None, heard):
            heard = found
            _say(f"{what}: {heard}")
        time.sleep(min(limits.look, 0.05 + time.monotonic() - began))
    try:
        yield taken
    finally:
        taken.let_go()


def holder(place: Path) -> Holder | None:
    """Who holds the lease at this place; None for nobody, or for somebody whose name cannot be read."""
    name = _held_by(place)
    worker = read_worker(name) if name else None
    return Holder(worker, float(name.rpartition(",")[2])) if name and worker else None


def held(outputs: Path, prefix: str) -> list[Path]:
    """The places of all leases below an outputs folder whose name begins so: held by the living, or left by the dead."""
    return matching(outputs / "locks", f"{prefix}*.lock")


def clear(outputs: Path, prefix: str) -> bool:
    """Remove what the dead have left of leases whose name begins so; whether none is held any more."""
    for place in held(outputs, prefix):
        if (taken := take(place)) is not None:
            taken.let_go()
    folder = outputs / "locks"
    with suppress(FileNotFoundError):  # others have let their last lease go meanwhile
        new = matching(folder, f"{NEW}*")
        now = clock(folder) if new else 0.0
        for each in new:
            if left_behind(each, now):
                shutil.rmtree(each, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()
    return not held(outputs, prefix)


def _try(place: Path, name: str, limits: Limits) -> bool | None:
    """Take a lease under this name: whether it was taken; None where it has to be looked at again."""
    new = place.with_name(NEW + name)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        (new / name).touch(exist_ok=False)
        os.utime(new / name)  # a network file system's client may have given it a time of its own
    except FileNotFoundError:  # whoever let the last lease go has just removed the folder
        return None
    try:
        os.rename(new, place)
        return True
    except NotADirectoryError:  # of a version that used flock: no process of this one holds it
        place.unlink(missing_ok=True)
        return None
    except OSError as error:
        if error.errno not in HELD:
            raise
        now = (new / name).stat().st_mtime
        return _take_over(place, name, now, limits)
    finally:
        with suppress(FileNotFoundError):  # it has become the lease
            (new / name).unlink()
            new.rmdir()


def _take_over(place: Path, name: str, now: float, limits: Limits) -> bool | None:
    """Take a lease from a holder that is stale at the time `now` of the file system; as `_try`."""
    found = _held_by(place)
    if found is None:
        with suppress(OSError):  # an empty one, which not every file system lets a rename replace; or held again
            place.rmdir()
        return None
    file, worker = place / found, read_worker(found)
    try:
        if not (worker is not None and worker.gone) and now - file.stat().st_mtime <= limits.stale:
            return False
        os.utime(file)  # before it is ours, so that nobody finds our name on a file that was not touched for long
        os.rename(file, place / name)
    except FileNotFoundError:  # another was quicker, or its holder has let it go
        return None
    return True


def _held_by(place: Path) -> str | None:
    """The name of the file in a lease's folder; one that is a worker's, if there are others."""
    try:
        names = os.listdir(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return min(names, key=lambda name: read_worker(name) is None, default=None)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
