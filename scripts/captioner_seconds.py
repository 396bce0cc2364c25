"""Seconds per image of captioners on the digits' test images, one thread.

python -m scripts.captioner_seconds digits/blip digits/consensus
"""

from __future__ import annotations

import sys
import time

import torch

from lgap_bench.cell.compose import resolved
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.dataset.digits import digits

IMAGES, REPEATS = 32, 5  # one chunk; the fastest of the repeats, since other work can only slow one down


def main() -> None:
    """Print one line per captioner: seconds for a caption, and for its loss with the gradient."""
    torch.set_num_threads(1)
    data = digits("test")
    x, truths = data.images[:IMAGES], [data.true_caption(k) for k in data.labels[:IMAGES].tolist()]
    for name in sys.argv[1:]:
        captioner = instantiate(resolved([f"captioner={name}"]).purifier["captioner"])
        spent: dict[str, list[float]] = {"caption": [], "loss": []}
        for _ in range(REPEATS):
            at = time.perf_counter()
            captioner(x)
            spent["caption"].append(time.perf_counter() - at)
            moved, at = x.clone().requires_grad_(True), time.perf_counter()
            torch.autograd.grad(captioner.loss(moved, truths).sum(), moved)
            spent["loss"].append(time.perf_counter() - at)
        said, lost = (min(times) / IMAGES for times in spent.values())
        print(f"{name}: {1000 * said:.2f} ms per caption, {1000 * lost:.2f} ms per loss and gradient")


if __name__ == "__main__":
    main()
