"""How long the steps that are told of go on: in the first chunk of a cell nothing else says how far it is."""

from __future__ import annotations

import time
from collections import deque

WINDOW = 16  # steps that are looked back on: those answered from a journal are soon forgotten
SURE = 3.0  # seconds that these have to have taken, before anything is said


class Pace:
    """The latest steps of one kind, with their times."""

    def __init__(self) -> None:
        self.name, self.n = "", 0
        self.marks: deque[tuple[int, float]] = deque(maxlen=WINDOW)

    def told(self, name: str, k: int, n: int | None, now: float | None = None) -> str:
        """`step 12 of 40, 90 s to step 40`; without a time where none can be said yet, and `step 12` where n is unknown."""
        at = time.monotonic() if now is None else now
        again = (name, n or 0) != (self.name, self.n) or (self.marks and k < self.marks[-1][0])
        if again:
            self.marks.clear()
        self.name, self.n = name, n or 0
        if not self.marks or k > self.marks[-1][0]:
            self.marks.append((k, at))
        if n is None:
            return f"{name} {k}"
        (first, began), (last, ended) = self.marks[0], self.marks[-1]
        if last == first or ended - began < SURE or k >= n:
            return f"{name} {k} of {n}"
        return f"{name} {k} of {n}, {duration((ended - began) / (last - first) * (n - k))} to {name} {n}"


def duration(seconds: float) -> str:
    """`42 s`, `7 min`, `3.2 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
