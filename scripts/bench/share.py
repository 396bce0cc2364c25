"""Part share: how much of a cell's time passes outside the models."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from lgap_bench import evaluate as evaluation
from lgap_bench import run as runner
from lgap_bench.attack.problem import Parts
from lgap_bench.build import build
from scripts.bench.cells import composed
from scripts.bench.settings import Settings
from scripts.bench.timing import spread, wait

GOAL = 5.0


class Inside:
    """Seconds spent inside wrapped functions, nested ones counted once."""

    def __init__(self, device: str) -> None:
        self.device, self.depth, self.seconds = device, 0, 0.0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function under the clock."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self.depth:
                return function(*args, **kwargs)
            wait(self.device)
            self.depth, began = 1, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                wait(self.device)
                self.depth, self.seconds = 0, self.seconds + time.perf_counter() - began

        return timed


def measure(settings: Settings) -> dict[str, Any]:
    """LGAP under BPDA through `run_cell`, from the built models to the drawn grid; one whole cell per repetition."""
    cells = [_once(settings) for _ in range(min(settings.repetitions, 2))]
    shares = [cell.outside_percent for cell in cells]
    return {
        "title": f"Share of a cell outside purifier, classifier and captioner (LGAP, BPDA-{settings.bpda_steps}, n = {settings.share_n})",
        "goal": f"at most {GOAL} %",
        "met": {"outside_percent": statistics.median(shares) <= GOAL},
        "outside_percent": spread(shares),
        "outside_percent_of_loop": spread([cell.outside_percent_of_loop for cell in cells]),
        "cells": cells,
    }


def _once(settings: Settings) -> dict[str, float]:
    clock, began = Inside(settings.device), 0.0

    def instrumented(*given: Any) -> Parts:
        nonlocal began
        parts = build(*given)
        purifier = parts.defense.purifier
        for module, name in (
            (purifier, "forward"),
            (purifier.captioner, "forward"),
            (purifier.captioner, "loss"),
            (parts.defense.classifier, "forward"),
        ):
            setattr(module, name, clock.wrap(getattr(module, name)))
        began = time.perf_counter()
        return parts

    evaluate, loop = evaluation.evaluate, {}

    def looped(*args: Any) -> Any:
        at, models = time.perf_counter(), clock.seconds
        chunks = evaluate(*args)
        loop.update(seconds=time.perf_counter() - at, models=clock.seconds - models)
        return chunks

    with tempfile.TemporaryDirectory() as folder:
        cfg = composed(
            settings,
            *("purifier=lgap", "attack=bpda", f"attack.steps={settings.bpda_steps}"),
            *(f"n={settings.share_n}", f"outputs={folder}"),
            *settings.cell,
        )
        grad = clock.wrap(torch.autograd.grad)
        with (
            mock.patch.object(runner, "build", instrumented),
            mock.patch.object(evaluation, "evaluate", looped),
            mock.patch.object(torch.autograd, "grad", grad),
        ):
            runner.run_cell(cfg, cfg.hydra.runtime.choices)
        total = time.perf_counter() - began
    # What comes after the loop over chunks (intervals, record, picture) is a fixed cost per cell.
    return {
        "seconds": total,
        "seconds_in_models": clock.seconds,
        "seconds_in_loop": loop["seconds"],
        "outside_percent": 100 * (1 - clock.seconds / total),
        "outside_percent_of_loop": 100 * (1 - loop["models"] / loop["seconds"]),
    }
