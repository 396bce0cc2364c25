"""What contracts and verdict cost: their share of a cell's loop, as a profile says: `python -m scripts.trust.cost [overrides]`.

Contracts, the probe and the comparison with finite differences are paid once a cell, the columns once a chunk, so the share of
512 images is reckoned from one cell of two chunks.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import tempfile

import torch

from lgap_bench.cell.compose import composed
from lgap_bench.measure import run_cell

ONCE = ("check_contracts", "check_gradient", "probe")
EACH = ("gradient_columns", "reach_columns")
IMAGES = 512


def main(overrides: list[str]) -> None:
    """Print a row per cell."""
    torch.set_num_threads(1)
    cells = (
        [overrides]
        if overrides
        else [[f"purifier={p}", f"attack={a}"] for p in ("lgap", "coup") for a in ("bpda", "full")]
    )
    print("| cell | contracts and probe, % | columns, % | at 512 images, % |\n| --- | --- | --- | --- |")
    for words in cells:
        once, each, loop = seconds(words)
        chunks = IMAGES / 32
        attack = (loop - once - each) / 2  # of a chunk
        share = 100 * (once + each / 2 * chunks) / (once + (attack + each / 2) * chunks)
        print(f"| {' '.join(words)} | {100 * once / loop:.1f} | {100 * each / loop:.1f} | {share:.1f} |", flush=True)


def seconds(words: list[str]) -> tuple[float, float, float]:
    """Of one cell of two chunks: what is paid once, what is paid per chunk, and the whole loop."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = composed([*words, "n=64", "chunk=32", "threads=1", f"outputs={folder}"])
        profile = cProfile.Profile()
        profile.enable()
        run_cell(cfg, cfg.hydra.runtime.choices)
        profile.disable()
    spent: dict[str, float] = {}
    for (file, _, name), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if "lgap_bench/evaluation/" in file:
            spent[name] = spent.get(name, 0.0) + cumulative
    return sum(spent.get(n, 0.0) for n in ONCE), sum(spent.get(n, 0.0) for n in EACH), spent["evaluate"]


if __name__ == "__main__":
    main(sys.argv[1:])
