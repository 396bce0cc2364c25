"""The networks behind one pass: which are called how often, for one image; found by looking, so that new parts need say nothing.

A network is the outermost module with weights that a pass calls. Purifiers, captioners and detectors are no networks but
what calls them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from lgap_bench.defense import Defense
from lgap_bench.purifier.base import Purifier

CALLERS = ("lgap_bench.captioner.", "lgap_bench.detector.", "lgap_bench.purifier.", "lgap_bench.own.")
SMALL = 0.01  # of the largest network's weights: what is smaller is not worth a line


@dataclass
class Called:
    """What went through each network: rows, operations on the way there where somebody counts them, and what it is.

    Attributes:
        rows, operations, weights, kinds: by the network's path; its class's name is its kind.
    """

    rows: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    weights: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def by_network(self, images: int) -> dict[str, float]:
        """Calls per image of every network that is worth a line; the way back of a gradient is no call."""
        most = max(self.weights.values(), default=0)
        return {name: rows / images for name, rows in self.rows.items() if self.weights[name] >= SMALL * most}


@contextmanager
def watched(module: nn.Module, operations: Callable[[], int] = lambda: 0) -> Iterator[Called]:
    """Count the calls of the networks inside a defense or a part of one; `operations` says how many there were so far."""
    called, depth, begun, hooks = Called(), [0], [0], []
    for name, each in networks(module):

        def before(m: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            if depth[0] == 0:
                rows = next((len(x) for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.dim()), 0)
                called.rows[name] += rows
                called.weights[name] = sum(p.numel() for p in m.parameters())
                called.kinds[name] = type(m).__name__
                begun[0] = operations()
            depth[0] += 1

        def after(m: nn.Module, args: Any, output: Any, name: str = name) -> None:
            depth[0] -= 1
            if depth[0] == 0:
                called.operations[name] += operations() - begun[0]

        hooks += [
            each.register_forward_pre_hook(before, with_kwargs=True),
            each.register_forward_hook(after, always_call=True),
        ]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


def networks(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module with weights that may be called as a network, by its path."""
    found = []
    for path, each in module.named_modules(remove_duplicate=True):
        caller = isinstance(each, Purifier | Defense) or type(each).__module__.startswith(CALLERS)
        own = any(True for _ in each.parameters(recurse=False))
        if (caller and not own) or not any(True for _ in each.parameters()):
            continue
        found.append((path.removeprefix("defense.").removeprefix("purifier.").replace(".model.", "."), each))
    return found


def calls_of(module: nn.Module, run: Callable[[], object], images: int) -> dict[str, float]:
    """Calls of each network per image while `run` works on so many."""
    with watched(module) as called:
        run()
    return called.by_network(images)
