"""A clock that charges every moment of a cell to one component, forward and backward.

A forward pass is timed around the component's own method, nested ones apart from it. In the backward pass a pair of
identities around each component marks when the gradient enters and leaves it. Methods are wrapped on the parts that the
benchmark built itself, never on a class or module.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scripts.bench.timing import wait

REST = "bookkeeping"  # what no component takes
BACKWARD = ", backward"


class Clock:
    """Seconds by name; at any moment exactly one name is running, the innermost."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.stack = [REST]
        self.restart()

    def restart(self) -> None:
        """Forget what was measured so far."""
        wait(self.device)
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.at = time.perf_counter()

    def tick(self) -> None:
        """Charge the time since the last tick to whatever is running."""
        wait(self.device)
        now = time.perf_counter()
        self.seconds[self.stack[-1]] += now - self.at
        self.at = now

    def enter(self, name: str) -> None:
        """From now on the time is this component's."""
        self.tick()
        self.stack.append(name)
        self.calls[name] += 1

    def leave(self) -> None:
        """Back to the component that called it."""
        self.tick()
        self.stack.pop()

    def read(self) -> dict[str, float]:
        """Seconds by name up to now. Raises RuntimeError if a component was entered and never left."""
        self.tick()
        if self.stack != [REST]:
            raise RuntimeError(f"still running: {', '.join(self.stack[1:])}")
        return dict(self.seconds)

    def attach(self, part: Any, method: str, name: str, differentiated: bool = True) -> None:
        """Put one method of a built part under the clock.

        `differentiated`: its first argument and its result carry the gradient, so that its backward pass is timed too.
        """
        function = getattr(part, method)

        def call(x: Any, *rest: Any, **named: Any) -> Any:
            traced = differentiated and torch.is_grad_enabled() and x.requires_grad
            self.enter(name)
            try:
                if not traced:
                    return function(x, *rest, **named)
                out = function(Mark.apply(x, self.leave), *rest, **named)
                return Mark.apply(out, lambda: self.enter(name + BACKWARD))
            finally:
                self.leave()

        setattr(part, method, call)


class Mark(torch.autograd.Function):
    """The identity; calls a function when the gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, passed: Callable[[], None]) -> Tensor:
        ctx.passed = passed
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.passed()
        return gradients[0], None
