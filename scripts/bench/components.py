"""Part profile: where the time of one cell goes, LGAP under the exact gradient, by component, forward and backward.

Forward passes are timed around the component's own function, nested ones apart from it. In the backward pass a pair of
identities around each component marks when the gradient enters and leaves it.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from lgap_bench import run as runner
from lgap_bench.attack.problem import Parts
from lgap_bench.build import build
from lgap_bench.noise import Noise
from scripts.bench.cells import composed
from scripts.bench.settings import Settings
from scripts.bench.timing import wait


class Clock:
    """Seconds by name; at any moment exactly one name is running, the innermost."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.stack, self.at = ["bookkeeping"], time.perf_counter()

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


def _timed(clock: Clock, name: str, function: Callable[..., Any], differentiated: bool) -> Callable[..., Any]:
    """The function under the clock; `differentiated`: its first argument and its result carry the gradient."""

    def call(x: Any, *rest: Any, **named: Any) -> Any:
        traced = differentiated and torch.is_grad_enabled() and x.requires_grad
        clock.enter(name)
        try:
            if not traced:
                return function(x, *rest, **named)
            out = function(Mark.apply(x, clock.leave), *rest, **named)
            return Mark.apply(out, lambda: clock.enter(f"{name}, backward"))
        finally:
            clock.leave()

    return call


def measure(settings: Settings) -> dict[str, Any]:
    """One cell through `run_cell`, from the built models on."""
    clock = Clock(settings.device)

    def instrumented(*given: Any) -> Parts:
        parts = build(*given)
        purifier, defense = parts.defense.purifier, parts.defense
        prior = purifier.prior
        for module, method, name, differentiated in (
            (purifier.captioner, "forward", "captioner", False),
            (prior, "embed", "text encoder", False),
            (prior, "encode", "autoencoder, encode", True),
            (prior, "noise", "U-Net", True),
            (prior, "decode", "autoencoder, decode", True),
            (defense.classifier, "forward", "classifier", True),
        ):
            setattr(module, method, _timed(clock, name, getattr(module, method), differentiated))
        clock.tick()
        clock.seconds.clear()  # what came before is imports and weights
        return parts

    fill = Noise._fill

    def noise(self: Noise, *rest: Any) -> Tensor:
        clock.enter("noise")
        try:
            return fill(self, *rest)
        finally:
            clock.leave()

    with tempfile.TemporaryDirectory() as folder:
        cfg = composed(
            settings,
            *("purifier=lgap", "attack=full", f"attack.steps={settings.profile_steps}"),
            *(f"n={settings.profile_n}", f"outputs={folder}"),
            *settings.cell,
        )
        patches: tuple[AbstractContextManager[Any], ...] = (
            mock.patch.object(runner, "build", instrumented),
            mock.patch.object(Noise, "_fill", noise),
        )
        with patches[0], patches[1]:
            record = runner.run_cell(cfg, cfg.hydra.runtime.choices)
        clock.tick()
        facts = record.run()
    assert clock.stack == ["bookkeeping"], clock.stack
    total = sum(clock.seconds.values())
    rows = sorted(clock.seconds.items(), key=lambda row: -row[1])
    return {
        "title": f"Where a cell's time goes (LGAP, attack=full, {settings.profile_steps} steps, n = {settings.profile_n})",
        "goal": None,
        "met": {},
        "total_seconds": total,
        "seconds_in_chunks": facts["seconds"],
        "components": [
            {"name": name, "seconds": seconds, "percent": 100 * seconds / total, "calls": clock.calls[name]}
            for name, seconds in rows
        ],
    }
