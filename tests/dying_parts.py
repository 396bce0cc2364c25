"""A purifier that keeps every promise on the three images it is asked about, and ends badly on a whole chunk."""

from __future__ import annotations

import os
import signal
import sys
import time

from torch import Tensor

from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier

MANY = 4  # images; contracts are asked on fewer


class Dies(Purifier):
    """`how`: exit, leave (os._exit), kill, bug, sleep, swallow (sleeps, and makes another error of a signal)."""

    randomized = False

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """The images as they are, while they are few."""
        if len(x) >= MANY:
            self.end()
        return x

    def end(self) -> None:
        """What a part should not do."""
        if self.how == "exit":
            sys.exit(0)
        if self.how == "leave":
            os._exit(0)
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "bug":
            raise LookupError("no such thing")
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            if self.how == "swallow":
                raise RuntimeError("something else went wrong") from None
            raise
