"""How large a benchmark is: everything that a part may scale, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Settings:
    """Sizes of all parts, at the size of the committed figures.

    Attributes:
        device, threads: where the models run; `threads` of the CPU, for every contestant alike.
        data: folder with `cifar10_lossless/test_0000_0511.npz`; random images where it is missing.
        repetitions: how often each contestant runs, in turns.
        pgd_n, pgd_steps: part pgd.
        bpda_n, bpda_steps: part bpda.
        gradient_n, large_n, large_width: part gradient: rows in the miniature, rows and width of the larger model.
        pixel_n, pixel_steps, pixel_width: part pixel: rows, steps, and channels at the highest resolution.
        share_n: part share.
        growth: part growth: the numbers of images that are compared, the first against the last.
        growth_apart: whether each of its cells has a process of its own, without which memory is not compared fairly.
        growth_steps: of its attack.
        profile_n, profile_steps: part profile.
        cell: overrides for every LGAP cell, to shorten a quick run or to point at other weights.
    """

    device: str = "cpu"
    threads: int = 1
    data: Path = ROOT.parent / "shared" / "data"
    repetitions: int = 5
    pgd_n: int = 8
    pgd_steps: int = 40
    bpda_n: int = 32
    bpda_steps: int = 40
    gradient_n: int = 32
    large_n: int = 4
    large_width: int = 96
    pixel_n: int = 4
    pixel_steps: int = 100
    pixel_width: int = 32
    share_n: int = 64
    growth: tuple[int, ...] = (64, 1024)
    growth_apart: bool = True
    growth_steps: int = 1
    profile_n: int = 32
    profile_steps: int = 20
    cell: tuple[str, ...] = ()


# Seconds instead of minutes: whether every part runs, not what it finds.
QUICK = Settings(
    repetitions=1,
    pgd_n=2,
    pgd_steps=3,
    bpda_n=2,
    bpda_steps=3,
    gradient_n=2,
    large_n=1,
    large_width=16,
    pixel_n=1,
    pixel_steps=4,
    pixel_width=16,
    share_n=2,
    growth=(2, 4),
    growth_apart=False,
    growth_steps=1,
    profile_n=2,
    profile_steps=2,
    cell=("score_draws=2", "attack.select_draws=1", "attack.confirm_draws=1"),
)
