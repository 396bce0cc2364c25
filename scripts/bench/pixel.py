"""Part pixel: the exact gradient through all steps of a pixel purifier, by how much of it is held in memory.

DiffPure on CIFAR-10's DDPM++ with a quarter of its channels and of its blocks (four resolutions, attention with one head at
16 x 16) and random weights: what a pass costs does not depend on them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lgap_bench.noise import streams
from lgap_bench.prior.ddpmpp import DDPMpp
from lgap_bench.prior.pixel import PixelPrior
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.purifier.memory import GIB, Memory
from lgap_bench.purifier.sampler import ReverseSDE
from scripts.bench import memory
from scripts.bench.settings import Settings
from scripts.bench.timing import race

LARGER = 1.3  # of what one step at a time holds
GOALS = {"exact gradient, 1.3 of that memory": 3.0, "exact gradient": 2.4}
ALONE = "exact gradient, one step at a time"


def measure(settings: Settings) -> dict[str, Any]:
    """Time and peak memory of one gradient under three plans, over a forward pass as an evaluation makes it."""
    purifier = build(settings.pixel_width, settings.pixel_steps).to(settings.device)
    usual = copy.deepcopy(purifier)  # torch's default layout
    purifier = purifier.to(memory_format=torch.channels_last)  # as every cell
    x = torch.rand(settings.pixel_n, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(settings.device)
    noise = streams(0, list(range(len(x))))["attack"].draws(1)

    def forward(which: DiffPure) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad():
                return which(x, noise)

        return run

    def gradient(gib: float | None) -> Callable[[], Tensor]:
        kept = Memory(gib)

        def run() -> Tensor:
            purifier.memory = kept
            x_row = x.clone().requires_grad_(True)
            return torch.autograd.grad(purifier(x_row, noise).sum(), x_row)[0]

        return run

    contestants = {"forward": forward(purifier), "forward, default layout": forward(usual), ALONE: gradient(0)}
    contestants[ALONE]()  # what a first call alone allocates is no part of its peak
    budget = LARGER * memory.of_call(contestants[ALONE], settings.device)
    names = list(GOALS)
    contestants |= {names[0]: gradient(budget * 2**20 / GIB), names[1]: gradient(None)}
    ran = race(contestants, settings.repetitions, settings.device)
    figures = ran.figures(*((name, "forward") for name in contestants if name != "forward"))
    peak = {name: memory.of_call(run, settings.device) for name, run in contestants.items()}
    met = {name: figures["ratios"][f"{name} / forward"]["of_medians"] <= goal for name, goal in GOALS.items()}
    return {
        "title": f"Exact gradient of DiffPure, {len(purifier.steps)} steps, {len(x)} images of 32 x 32",
        "goal": f"at most {GOALS[names[0]]} forward passes' time within {LARGER} of the memory of one step at a time, {GOALS[names[1]]} if all may be held",
        "met": met | {"within the budget": peak[names[0]] <= LARGER * peak[ALONE]},
        "same_gradient": all(torch.equal(ran.results[name], ran.results[ALONE]) for name in GOALS),
        "weights": {"unet": sum(p.numel() for p in purifier.prior.parameters())},
        **figures,
        "peak_mib": peak,
    }


def build(width: int, steps: int) -> DiffPure:
    """DiffPure at its own depth t* = 0.1, in `steps` steps (100 as published); `width` channels at 32 x 32."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = DDPMpp(nf=width, ch_mult=(1, 2, 2, 2), num_res_blocks=2, attn_resolutions=(16,), image_size=32)
    alphas = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    return DiffPure(PixelPrior(unet, alphas), ReverseSDE(0.1 / steps), 0.1)
