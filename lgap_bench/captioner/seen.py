"""Captions that were made before: an image that is met again is not described again."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from lgap_bench.noise import Noise

MOST = 4096  # captions that are remembered: those of about a hundred steps on a chunk


class Seen:
    """The captions of the images that one chunk has met, by the images' bytes; the oldest go first.

    Only a captioner whose sentence follows from the image alone says `by_image = True`; any other is asked each time. Nothing is
    remembered of its loss, which has a gradient. What is remembered hangs on the chunk's calls in their order and on nothing else, so
    that a chunk is the same after a kill: a journal keeps what each call has added (`mark`, `since`), and a resumed one restores it.

    Args:
        most: captions that are remembered.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most, self.added = most, 0
        self.held: dict[str, str] = {}

    def captions(self, captioner: Any, x: Tensor, noise: Noise) -> list[str]:
        """captioner(x, noise), asked only about images (B, C, H, W) that it has not described."""
        if not getattr(captioner, "by_image", False):
            captions: list[str] = captioner(x, noise)
            return captions
        keys = [_key(image) for image in x]
        fresh = list({key: row for row, key in enumerate(keys) if key not in self.held}.values())
        found = dict(self.held) if fresh else self.held  # what this batch drives out it may still need
        if fresh:
            # All of them as they came: a copy of some may lie otherwise in memory, and be rounded otherwise.
            given = (x, noise) if len(fresh) == len(x) else (x[fresh], noise.take(fresh))
            added = {keys[row]: text for row, text in zip(fresh, captioner(*given), strict=True)}
            found |= added
            self.restore(added)
        return [found[key] for key in keys]

    def mark(self) -> int:
        """How many captions were added so far."""
        return self.added

    def since(self, mark: int) -> dict[str, str]:
        """Those added after the mark, as far as they are still remembered."""
        count = min(self.added - mark, len(self.held))
        return dict(list(self.held.items())[len(self.held) - count :]) if count else {}

    def restore(self, added: dict[str, str]) -> None:
        """Remember these too."""
        self.held |= added
        self.added += len(added)
        while len(self.held) > self.most:
            del self.held[next(iter(self.held))]


def _key(image: Tensor) -> str:
    array = image.detach().cpu().contiguous()
    facts = f"{array.dtype} {tuple(array.shape)} ".encode()
    return hashlib.blake2b(facts + array.view(-1).view(torch.uint8).numpy().tobytes(), digest_size=16).hexdigest()
