"""The journal of one chunk on the disk: which answers are kept, and how a call is answered from them.

Each answer is kept with its number and a digest of what was asked. Where that differs, or a file is damaged, the journal counts no
longer from there on. Calls inside a call are parts of it: of an estimate over many passes its mean alone is kept.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lgap_bench.attack.journal import Journal
from lgap_bench.noise import Noise
from lgap_bench.runtime.files import FULL
from lgap_bench.runtime.segments import Entry, Segments

BUFFER = 256 * 2**20  # bytes that wait in memory
MOST = 8 * 2**30  # bytes on the disk, per chunk
WORTH = 1.0  # seconds of work that are written when the process is told to end
Say = Callable[[str], None]


class Remembers(Protocol):
    """What a defense remembers of earlier calls (captions): a call that is answered from a journal has to leave it too."""

    def mark(self) -> int:
        """How much is remembered."""

    def since(self, mark: int) -> dict[str, str]:
        """What was added after that mark."""

    def restore(self, added: dict[str, str]) -> None:
        """Add what an earlier process had added."""


@dataclass(frozen=True)
class Costs:
    """What it costs to keep an answer; a call that takes no longer is computed again instead.

    Attributes:
        least: seconds, however small it is.
        written, read: bytes per second that a disk takes of the answer, and that a digest reads of what was asked.
    """

    least: float = 0.005
    written: float = 20e6
    read: float = 40e6

    def of(self, answer: Sequence[Any], given: Sequence[Any]) -> float:
        """Seconds, for the tensors among these; some of them generous, so that a journal costs a few percent at most."""
        size, asked = (sum(each.nbytes for each in some if isinstance(each, Tensor)) for some in (answer, given))
        return self.least + size / self.written + asked / self.read


class ChunkJournal(Journal):
    """The journal of one chunk, in numbered files below its folder; a context that writes what is left when it is left by force.

    Args:
        folder: where the files lie.
        stamp: whose chunk it is; files of another are refused.
        every: seconds between two files, the work that a kill may cost.
        say: is told in one line of what went wrong; nothing here stops an evaluation.
        memory: what the defense remembers, or None.
        costs: which calls are worth keeping.

    Attributes:
        calls: calls so far.
    """

    keeps = True

    def __init__(
        self,
        folder: Path,
        stamp: str,
        every: float,
        say: Say,
        memory: Remembers | None = None,
        costs: Costs = Costs(),
    ) -> None:
        self.store = Segments(folder, stamp)
        self.every, self.say, self.memory, self.costs = every, say, memory, costs
        self.calls = 0
        self.inside = self.full = False  # within a call that is being computed; no more is kept
        self.waiting: dict[int, Entry] = {}
        self.bytes, self.work, self.saved = 0, 0.0, time.monotonic()
        if self.store.refused:
            say(f"journal {self.store.refused}: what it and later ones hold is computed again")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An error of a part comes again; an interruption, or too little memory, need not.
        by_force = kind is not None and (not issubclass(kind, Exception) or issubclass(kind, torch.OutOfMemoryError))
        if by_force and self.work >= min(self.every, WORTH):
            self.save()
        self.store.close()

    def tensors(self, kind: str, given: Sequence[Any], compute: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """From the journal, or computed and kept."""
        return self.call(kind, given, lambda: (compute(), {}))[0]

    def texts(self, kind: str, given: Sequence[Any], compute: Callable[[], list[str] | None]) -> list[str] | None:
        """From the journal, or computed and kept."""
        found: list[str] | None = self.call(kind, given, lambda: ((), {"texts": compute()}))[1]["texts"]
        return found

    def differentiable(
        self, kind: str, x: Tensor, given: Sequence[Any], function: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """From the journal, or computed and kept; so is the gradient, each time that one is taken."""
        if self.inside:
            return function(x)
        if not (x.requires_grad and torch.is_grad_enabled()):
            return self.tensors(kind, (x, *given), lambda: (function(x),))[0]
        return _Kept.apply(x, self, kind, given, function)

    def call(
        self, kind: str, given: Sequence[Any], compute: Callable[[], tuple[tuple[Tensor, ...], dict[str, Any]]]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """The answer of the next call, from the journal or computed, and what else is plain data of it."""
        if self.inside:  # a part of a call that is kept as a whole
            return compute()
        self.calls += 1
        number = self.calls
        if number in self.store.index and (entry := self._found(number, kind, given)) is not None:
            device = next((each.device for each in given if isinstance(each, Tensor)), torch.device("cpu"))
            return tuple(_tensor(*each, device) for each in zip(entry.arrays, entry.strides, strict=True)), entry.facts
        mark = 0 if self.memory is None else self.memory.mark()
        began, self.inside = time.perf_counter(), True
        try:
            tensors, facts = compute()
        finally:
            self.inside = False
        if any(each.is_cuda for each in tensors):
            torch.cuda.synchronize()  # or the call has only been asked for
        seconds = time.perf_counter() - began
        made = {} if self.memory is None else self.memory.since(mark)
        self._keep(number, kind, given, tensors, {**facts, "made": made}, seconds)
        return tensors, facts

    def _found(self, number: int, kind: str, given: Sequence[Any]) -> Entry | None:
        """The entry of a call, or None where there is none that can be trusted; then those that follow go too."""
        try:
            entry = self.store.get(number)
        except ValueError as error:
            self.say(f"journal {error}: what follows is computed again")
            self.store.drop(number)
            return None
        assert entry is not None
        if entry.kind != kind or entry.digest != digest(given):
            self.say(f"journal {self.store.folder}: call {number} is another one now, what follows is computed again")
            self.store.drop(number)
            return None
        self.answered += entry.seconds
        if self.memory is not None:
            self.memory.restore(entry.facts["made"])
        return entry

    def _keep(
        self,
        number: int,
        kind: str,
        given: Sequence[Any],
        tensors: tuple[Tensor, ...],
        facts: dict[str, Any],
        took: float,
    ) -> None:
        self.work += took
        if self.full or took < self.costs.of(tensors, given) or not all(_dense(each) for each in tensors):
            return
        arrays = tuple(np.array(each.detach().cpu().contiguous().numpy()) for each in tensors)
        strides = tuple(each.stride() for each in tensors)
        self.waiting[number] = Entry(kind, digest(given), took, arrays, strides, facts)
        self.bytes += sum(array.nbytes for array in arrays)
        if time.monotonic() - self.saved >= self.every or self.bytes >= BUFFER:
            self.save()

    def save(self) -> None:
        """Write what waits. A full disk is one line and the end of the journal; what is written already stays."""
        if self.waiting and not self.full:
            try:
                self.store.write(self.waiting)
            except OSError as error:
                why = "the disk is full" if error.errno in (*FULL, errno.EFBIG) else error.strerror or str(error)
                self._stop(f"journal {self.store.folder} cannot be written ({why})")
            else:
                if self.store.size > MOST:
                    self._stop(f"journal {self.store.folder} has {self.store.size / 2**30:.1f} GiB")
        self.waiting, self.bytes, self.work, self.saved = {}, 0, 0.0, time.monotonic()

    def _stop(self, why: str) -> None:
        self.full = True
        self.say(f"{why}: a kill from here on costs what this chunk does after it")


class _Kept(torch.autograd.Function):
    """A function whose value and gradients are calls of a journal."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        journal: ChunkJournal,
        kind: str,
        given: Sequence[Any],
        function: Callable[[Tensor], Tensor],
    ) -> Tensor:
        ctx.journal, ctx.kind, ctx.function, ctx.again = journal, kind, function, None
        followed: list[Tensor] = []

        def compute() -> tuple[tuple[Tensor, ...], dict[str, Any]]:
            followed[:] = _followed(function, x)
            return (followed[1].detach().clone(),), {"gradient": followed[1].requires_grad}

        (value,), facts = journal.call(f"{kind}, forward", (x, *given), compute)
        # Saved and not kept as an attribute: so the graph lives as long as that of any other function.
        ctx.save_for_backward(*(followed or [x.detach().clone()]))
        if not facts["gradient"]:
            ctx.mark_non_differentiable(value)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *value = ctx.saved_tensors
        keep = _outlives()

        def compute() -> tuple[tuple[Tensor, ...], dict[str, Any]]:
            if not value and ctx.again is None:  # the forward pass was answered from the journal, which ends here
                ctx.again = _followed(ctx.function, x)
            z, y = (x, *value) if value else ctx.again
            found = torch.autograd.grad(y, z, gradient, retain_graph=keep, allow_unused=True)
            return tuple(each for each in found if each is not None), {}

        found, _ = ctx.journal.call(f"{ctx.kind}, backward", (x, gradient), compute)
        if not keep:
            ctx.again = None
        return found[0] if found else None, None, None, None, None


def _outlives() -> bool:
    """Whether the graph outlives the backward pass that runs now (retain_graph), as torch knows and has no public word for.

    Should its private one go, graphs are kept until nobody holds what they lead to: memory, and no number, pass or call.
    """
    asked = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return asked is None or bool(asked())


def _followed(function: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """A copy of x and function of it, joined by a graph."""
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_(True)  # whoever asks may write into x before the backward pass
        return [z, function(z)]


def digest(given: Sequence[Any]) -> str:
    """16 hex digits of what a call is given."""
    found = hashlib.blake2b(digest_size=8)
    for each in given:
        if isinstance(each, Tensor):
            found.update(f"{each.dtype} {tuple(each.shape)} ".encode())
            found.update(each.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        elif isinstance(each, Noise):
            found.update(np.array([each.keys, each.ids], np.int64).tobytes() + str(each.seed).encode())
        else:
            found.update(repr(each).encode())
    return found.hexdigest()


def _dense(tensor: Tensor) -> bool:
    """Whether it can be kept: of a type that numpy has, and without places that share their memory."""
    known = tensor.dtype in (torch.float32, torch.float64, torch.bool, torch.int64, torch.int32, torch.float16)
    return known and all(step > 0 or size <= 1 for size, step in zip(tensor.shape, tensor.stride(), strict=True))


def _tensor(array: Any, strides: tuple[int, ...], device: torch.device) -> Tensor:
    """A kept tensor as it lay in memory."""
    held = torch.from_numpy(array)
    return torch.empty_strided(held.shape, strides, dtype=held.dtype, device=device).copy_(held)
