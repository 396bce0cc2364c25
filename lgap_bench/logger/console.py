"""Progress on stderr: a bar on a terminal, lines in a log; the first within two seconds, and never a minute of silence."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from lgap_bench.cell.config import Cell
from lgap_bench.logger.base import Done, Logger
from lgap_bench.logger.pace import Pace
from lgap_bench.record import Record

FIRST = 0.5  # seconds of work before something is said; a cell that answers sooner from its record says nothing
SILENCE = 55.0  # seconds of silence in a log, after which a line says what is going on
BAR = "{desc} |{bar:24}| {n_fmt}/{total_fmt}{postfix}"


class Console(Logger):
    """Robust-so-far, the time left, and what goes on within a chunk and before the first one."""

    def __init__(self) -> None:
        self.live, self.title, self.n, self.doing = sys.stderr.isatty(), "", 0, ""
        self.began = self.said = self.reckoned = time.monotonic()
        self.done: Done | None = None
        self.bar: Any = None
        self.pace = Pace()
        self.lock, self.over = threading.RLock(), threading.Event()

    def preparing(self, cell: Cell) -> None:
        """Files are hashed, which takes a while at paper scale: from now on somebody looks at the clock."""
        self.title, self.n, self.doing = cell.title, cell.n, "reading weights, data and code"
        self.began = time.monotonic()
        threading.Thread(target=self._watch, daemon=True, name="progress").start()

    def started(self, cell: Cell, record: Record) -> None:
        """The cell is not answered from its record."""
        self.title, self.doing = cell.title, "loading the parts"

    def phase(self, text: str) -> None:
        """A line of its own."""
        self.doing = text
        self._line(text)

    def step(self, name: str, k: int, n: int | None) -> None:
        """Kept for the next line, or the bar."""
        self.doing = self.pace.told(name, k, n)

    def chunk(self, done: Done) -> None:
        """A line, or the bar moves on."""
        self.done, self.doing, self.reckoned = done, "", time.monotonic()
        if self.live:
            self._draw()
        else:
            self._line(
                f"{self.title}: {done.images}/{done.n}  robust so far {done.robust:5.1f} %  {done.left:4.0f} s left"
            )

    def closed(self) -> None:
        """The bar stays as it is; an error's own line is printed by whoever catches it."""
        self.over.set()
        with self.lock:
            if self.bar is not None:
                self.bar.close()
                self.bar = None

    def _watch(self) -> None:
        """Once a second (at first more often): the bar, or after too long a silence a line."""
        while not self.over.wait(1.0 if self.said > self.began else FIRST / 2):
            now = time.monotonic()
            quiet = FIRST if self.said <= self.began else SILENCE
            if self.live and now - self.began >= FIRST:
                self._draw()
            elif not self.live and now - max(self.said, self.began) > quiet:
                done = f"{self.done.images}/{self.done.n}, " if self.done else ""  # which the bar shows by itself
                self._line(f"{self.title}: {done}{self._now(now)}")

    def _now(self, now: float) -> str:
        """What goes on, since when, and how long it may take."""
        doing = f"{self.doing}, " if self.doing else ""
        if self.done is None:
            return f"{doing}{now - self.began:.0f} s"
        return f"{doing}about {max(0.0, self.done.left - (now - self.reckoned)):.0f} s left"

    def _line(self, text: str) -> None:
        with self.lock:
            self.said = time.monotonic()
            if self.bar is not None:
                self.bar.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr, flush=True)

    def _draw(self) -> None:
        from tqdm import tqdm  # here: a cell that answers from its record shows no bar

        with self.lock:
            if self.over.is_set():
                return
            if self.bar is None:
                self.bar = tqdm(total=self.n, desc=self.title, bar_format=BAR, file=sys.stderr, dynamic_ncols=True)
            if self.done is not None:
                self.bar.total, self.bar.n = self.done.n, self.done.images
            robust = f"robust {self.done.robust:.1f} %, " if self.done else ""
            self.bar.set_postfix_str(f"{robust}{self._now(time.monotonic())}".rstrip(), refresh=True)
            self.said = time.monotonic()
