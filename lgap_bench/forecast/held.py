"""How much memory a pass holds for its way back, at the moment when it holds most."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lgap_bench.purifier.memory import address


class _Kept:
    """A saved tensor; it is let go when the graph that saved it is."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def most_held(run: Callable[[], object], weights: Iterable[Tensor] = ()) -> int:
    """Bytes of the tensors that are saved for a backward pass while `run` works, at most at once, without the `weights`.

    Each storage is counted once and in full, since a view of it keeps all of it alive.
    """
    known = {address(weight) for weight in weights}
    users: Counter[int] = Counter()
    now = most = 0

    def let_go(place: int, size: int) -> None:
        nonlocal now
        users[place] -= 1
        if not users[place]:
            now -= size

    def pack(tensor: Tensor) -> Any:
        nonlocal now, most
        kept = _Kept(tensor)
        if (place := address(tensor)) not in known:
            size = tensor.untyped_storage().nbytes()
            now += 0 if users[place] else size
            users[place] += 1
            most = max(most, now)
            weakref.finalize(kept, let_go, place, size)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        run()
    return most
