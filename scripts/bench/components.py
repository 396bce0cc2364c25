"""Part profile: where the time of one cell's loop goes, LGAP under the exact gradient, by component, forward and backward.

`noise` is what the purifier draws; an attack's random start, once per chunk, counts as bookkeeping.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lgap_bench.attack.problem import Parts
from lgap_bench.noise import Noise
from scripts.bench import cells
from scripts.bench.clock import Clock
from scripts.bench.settings import Settings


@dataclass(frozen=True)
class TimedNoise(Noise):
    """Noise whose draws are charged to `noise`."""

    clock: Clock

    def normal(self, like: Tensor, tag: str) -> Tensor:
        """As `Noise.normal`."""
        return self._timed(super().normal, like, tag)

    def uniform(self, like: Tensor, tag: str) -> Tensor:
        """As `Noise.uniform`."""
        return self._timed(super().uniform, like, tag)

    def _timed(self, draw: Callable[[Tensor, str], Tensor], like: Tensor, tag: str) -> Tensor:
        self.clock.enter("noise")
        try:
            return draw(like, tag)
        finally:
            self.clock.leave()


def measure(settings: Settings) -> dict[str, Any]:
    """One cell from the built models to its finished record."""
    attack = ("purifier=lgap", "attack=full", f"attack.steps={settings.profile_steps}", f"n={settings.profile_n}")
    parts, cell = cells.built(settings, *attack, *settings.cell)
    clock = Clock(settings.device)
    _attach(clock, parts)
    with tempfile.TemporaryDirectory() as folder:
        record = cells.begun(cell, settings, Path(folder))
        clock.restart()  # what came before is imports and weights
        cells.finished(parts, cell, settings, record, cells.looped(parts, cell, settings, record))
        seconds = clock.read()
        in_chunks = record.run()["seconds"]
    total = sum(seconds.values())
    return {
        "title": f"Where a cell's time goes (LGAP, attack=full, {settings.profile_steps} steps, n = {settings.profile_n})",
        "goal": None,
        "met": {},
        "total_seconds": total,
        "seconds_in_chunks": in_chunks,
        "components": [
            {"name": name, "seconds": spent, "percent": 100 * spent / total, "calls": clock.calls[name]}
            for name, spent in sorted(seconds.items(), key=lambda row: -row[1])
        ],
    }


def _attach(clock: Clock, parts: Parts) -> None:
    purifier, classifier = parts.defense.purifier, parts.defense.classifier
    prior = purifier.prior
    clock.attach(purifier.captioner, "forward", "captioner", differentiated=False)
    clock.attach(prior, "embed", "text encoder", differentiated=False)
    clock.attach(prior, "encode", "autoencoder, encode")
    clock.attach(prior, "noise", "U-Net")
    clock.attach(prior, "decode", "autoencoder, decode")
    clock.attach(classifier, "forward", "classifier")
    for method in ("forward", "observe"):
        setattr(purifier, method, _with_timed_noise(getattr(purifier, method), clock))


def _with_timed_noise(method: Callable[..., Any], clock: Clock) -> Callable[..., Any]:
    """A purifier's method of (x, noise, ...), handed noise that is timed."""

    def call(x: Tensor, noise: Noise, *rest: Any, **named: Any) -> Any:
        return method(x, TimedNoise(noise.keys, noise.ids, noise.seed, clock), *rest, **named)

    return call
