"""Every random draw of an evaluation: which seed, for which sample.

Noise is a function of (seed, role, sample id, restart, step, draw) and of a tag that names the place where it is used,
never of what else is in the batch, of the order of calls or of torch's global generator, which attack libraries reset.
So a defense answers the same in any batch, after a resume, and when a step is recomputed for its gradient.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ROLES = ("attack", "select", "score", "train")  # streams that must never meet: see "Honest scoring" in the README


def derive(*parts: int | str) -> int:
    """A 63-bit seed from any parts, stable across machines and Python versions."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = part.encode() if isinstance(part, str) else struct.pack("<q", part)
        # With its length, so that ("ab", "c") and ("a", "bc") differ.
        digest.update(struct.pack("<I", len(text)) + text)
    return int.from_bytes(digest.digest(), "little") >> 1  # 63 bits fit an int64


@dataclass(frozen=True)
class Noise:
    """One independent stream per row of a batch.

    Attributes:
        keys: one 63-bit key per row.
        ids: the sample id of each row, for parts that look a sample up (the diagnostic caption sources).
        seed: the cell's seed, for choices that must not change from draw to draw.
    """

    keys: tuple[int, ...]
    ids: tuple[int, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, start: int, stop: int) -> Noise:
        """Rows start to stop, for splitting a large batch."""
        return Noise(self.keys[start:stop], self.ids[start:stop], self.seed)

    def take(self, index: Sequence[int]) -> Noise:
        """Some of the rows, in the order of `index`."""
        return Noise(tuple(self.keys[i] for i in index), tuple(self.ids[i] for i in index), self.seed)

    def normal(self, like: Tensor, tag: str) -> Tensor:
        """Standard normal of the shape, dtype and device of `like` (rows, ...); drawn on the CPU in float32."""
        return self._fill(like, tag, lambda generator, shape: generator.standard_normal(shape, dtype=np.float32))

    def uniform(self, like: Tensor, tag: str) -> Tensor:
        """Uniform in [0, 1), else as `normal`."""
        return self._fill(like, tag, lambda generator, shape: generator.random(shape, dtype=np.float32))

    def _fill(
        self, like: Tensor, tag: str, draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    ) -> Tensor:
        if len(like) != len(self.keys):
            raise ValueError(
                f"noise has {len(self.keys)} rows, the batch has {len(like)}: repeat the images per draw first"
            )
        out = np.empty(tuple(like.shape), dtype=np.float32)
        # Philox takes the whole key; torch's CPU generator keeps the lower 32 bits of a seed, and streams would meet.
        # One generator is set to each row's fresh state: a third of the time of making one per row.
        philox = np.random.Philox(key=0)
        generator, fresh = np.random.Generator(philox), philox.state
        for row, key in enumerate(self.keys):
            fresh["state"]["key"][0] = derive(key, tag)
            philox.state = fresh
            out[row] = draw(generator, out.shape[1:])
        return torch.from_numpy(out).to(device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class Stream:
    """The noise of one role for a list of samples; `draws` hands it out for one restart and step."""

    seed: int
    role: str
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"noise role {self.role} is not one of {', '.join(ROLES)}")

    def draws(self, count: int = 1, restart: int = 0, step: int = 0, first: int = 0) -> Noise:
        """Noise for `count` draws of every sample, draw-major: row d * len(ids) + i is draw first + d of sample i."""
        keys = tuple(
            derive(self.seed, self.role, sample, restart, step, draw)
            for draw in range(first, first + count)
            for sample in self.ids
        )
        return Noise(keys, self.ids * count, self.seed)

    def take(self, index: Sequence[int]) -> Stream:
        """The same role for some of the samples."""
        return Stream(self.seed, self.role, tuple(self.ids[i] for i in index))


def fresh(rows: int) -> Noise:
    """Noise for a caller who brings none, keys from torch's global generator: what a plain module does."""
    keys = tuple(int(key) for key in torch.randint(2**62, (rows,)))
    return Noise(keys, tuple(range(rows)), 0)


def streams(seed: int, ids: Sequence[int]) -> dict[str, Stream]:
    """One stream per role for these samples."""
    return {role: Stream(seed, role, tuple(int(i) for i in ids)) for role in ROLES}
