"""Who writes a file or holds a lease: a process, named so that others, on this machine or another, can tell it is gone."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

PROC = Path("/proc")
# Between commas, which a quoted host name does not have.
_NAME = re.compile(r"(?:^|,)(?P<host>[^,/]+),(?P<kernel>[\w-]*),(?P<pid>\d+),(?P<started>\d*)(?=[,.]|$)")


@dataclass(frozen=True)
class Worker:
    """A process.

    Attributes:
        host: its machine's name.
        kernel: the machine's boot and the process' own space of pids (containers have theirs): only where both are the
            same does a pid say anything.
        pid: its number, which another process may have later.
        started: when, in clock ticks since the boot; tells two processes with one pid apart. Empty where /proc is missing.
    """

    host: str
    kernel: str
    pid: int
    started: str

    @property
    def name(self) -> str:
        """As part of a file's name."""
        return f"{quote(self.host, safe='')},{self.kernel},{self.pid},{self.started}"

    @property
    def gone(self) -> bool:
        """Whether the process has certainly ended. Of another machine's, nobody here can tell: False."""
        here = this_worker()
        if (self.host, self.kernel) != (here.host, here.kernel) or not self.started or not here.started:
            return False
        found = _started(self.pid)
        if found is None:  # another user's processes may be hidden from /proc
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
            except OSError:
                return False
            found = _started(self.pid)  # either it has just begun, or /proc hides it
            return found is not None and found != self.started
        return found != self.started


def this_worker() -> Worker:
    """The process that asks."""
    return Worker(os.uname().nodename, _kernel(), os.getpid(), _started(os.getpid()) or "")


def read_worker(name: str) -> Worker | None:
    """The worker whom a file's name bears, or None where it bears none."""
    found = _NAME.search(name)
    if found is None:
        return None
    return Worker(unquote(found["host"]), found["kernel"], int(found["pid"]), found["started"])


@cache
def _kernel() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text()[:8]
        return f"{boot}-{(PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks; `ended` for one that nobody has waited for yet; None where there is none."""
    try:
        # The second field is the program's name, in brackets, and may itself hold blanks and brackets.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if fields[0] in "ZX" else fields[19]
