"""Purified training images, computed once per purifier and kept: outputs/purified/<id>/, resumable batch by batch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lgap_bench.dataset.base import DataSet
from lgap_bench.defense import passes
from lgap_bench.noise import streams
from lgap_bench.purifier.base import Purifier
from lgap_bench.runtime.files import write_json, write_npy

TRAIN_SEED = 0  # of the purification noise; the role `train` keeps it apart from everything a cell draws
Say = Callable[[str], None]
Tell = Callable[[str, int, int | None], None]  # name, k, n: see `Logger.step`


def untold(name: str, k: int, n: int | None) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Images:
    """Training or validation images: uint8 (copies, N, C, H, W) and labels (N,)."""

    pixels: Tensor
    labels: Tensor

    def batch(self, rows: Tensor, copy: int, device: str) -> tuple[Tensor, Tensor]:
        """Float images in [0, 1] and labels of some rows, on the device."""
        pixels = self.pixels[copy % len(self.pixels)][rows]
        return pixels.to(device).float().div(255), self.labels[rows].to(device)


def bytes_of(images: Tensor) -> Tensor:
    """Images in [0, 1] as 8 bits per value, as a picture file would keep them."""
    # 8 bits hide the float rounding of other batch sizes and devices, and take a quarter of the space.
    return images.clamp(0, 1).mul(255).round().byte().cpu()


def clean(data: DataSet, n: int | None) -> Images:
    """The first n images as they are."""
    return Images(bytes_of(data.images[:n])[None], data.labels[:n])


def purified(
    data: DataSet,
    purifier: Callable[[], Purifier],
    folder: Path,
    identity: Mapping[str, Any],
    n: int | None,
    copies: int,
    batch: int,
    max_rows: int,
    device: str,
    say: Say,
    tell: Tell = untold,
) -> Images:
    """The first n images, purified `copies` times; batches that are in the folder are not computed again.

    `purifier` builds it, which is not done where nothing is missing; `max_rows` go through it at a time. `say` is told of
    each batch, `tell` of each pass.
    Raises ValueError if the folder holds images of another config: they are never mixed.
    """
    require_same(folder, identity)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "identity.json", identity)
    total = len(data.labels[:n])
    starts = range(0, total, batch)
    began, fresh = time.monotonic(), 0
    parts: list[Tensor] = []
    built: Purifier | None = None
    for copy in range(copies):
        for start in starts:
            rows = slice(start, min(start + batch, total))
            file = folder / f"{data.split}-{copy:02d}-{start:06d}.npy"
            pixels = _read(file, (rows.stop - start, *data.images.shape[1:]))
            if pixels is None:
                built = built or purifier()
                done = partial(_done, tell, copy * total + start, copies * total)
                pixels = _purify(data, built, rows, copy, max_rows, device, done)
                write_npy(file, pixels.numpy())
                fresh += 1
                left = (time.monotonic() - began) / fresh * (copies * len(starts) - len(parts) - 1)
                say(f"purifying {data.split} images: {rows.stop}/{total} (copy {copy + 1}/{copies}), {left:.0f} s left")
            parts.append(pixels)
    stacked = torch.cat(parts).view(copies, total, *data.images.shape[1:])
    return Images(stacked, data.labels[:n])


def _done(tell: Tell, before: int, total: int, k: int) -> None:
    """Tell that k images more are done than before this batch."""
    tell("image", before + k, total)


def require_same(folder: Path, identity: Mapping[str, Any], theirs: bool = False) -> None:
    """Raise ValueError naming the first thing in which a folder's images were made otherwise than asked for.

    `theirs`: the folder was given by the user, so it has to be there.
    """
    file, wanted = folder / "identity.json", json.loads(json.dumps(identity))
    if not file.exists():
        if theirs or any(folder.glob("*.npy")):
            raise ValueError(
                f"purified images: {file} does not exist, so nothing says how they were made: give a folder of outputs/purified, or null"
            )
        return
    try:
        held = json.loads(file.read_text())
    except ValueError:
        held = None
    if held != wanted:
        named = _difference(held, wanted, "") if isinstance(held, dict) else "identity.json"
        raise ValueError(
            f"purified images in {folder} were made by another config ({named} differs): delete this folder, they are made again"
        )


def _difference(held: Any, wanted: Any, path: str) -> str:
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in sorted(held.keys() | wanted.keys()):
            if held.get(key) != wanted.get(key):
                return _difference(held.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    return path


@torch.no_grad()
def _purify(
    data: DataSet, purifier: Purifier, rows: slice, copy: int, max_rows: int, device: str, done: Callable[[int], None]
) -> Tensor:
    model = next((p.dtype for p in purifier.parameters()), torch.float32)
    x = data.images[rows].to(device=device, dtype=model)
    noise = streams(TRAIN_SEED, data.ids[rows].tolist())["train"].draws(1, step=copy)
    found = []
    for a, b in passes(len(x), max_rows):
        found.append(bytes_of(purifier(x[a:b], noise.rows(a, b)).float()))
        done(b)
    return torch.cat(found)


def _read(file: Path, shape: tuple[int, ...]) -> Tensor | None:
    """A kept batch, or None where there is none; a damaged one is made again."""
    try:
        pixels = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(pixels) if pixels.shape == shape and pixels.dtype == np.uint8 else None
