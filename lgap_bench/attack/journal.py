"""A journal of a chunk's expensive calls: an evaluation that was killed goes on from it, bitwise as if it had not been.

Attacks are deterministic functions of what their calls of the defense answer. So no attack saves a state of its own: the
calls are numbered, and their answers are kept (`attack.chunk_journal`). After a kill the attack runs again from its
beginning. Calls whose answers are in the journal are answered from it at once, until it ends; from there on everything is
computed. Libraries and a user's own attacks need no code for it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor


class Journal:
    """Base class and, as it stands, the journal that keeps nothing: every call is computed. A context around its chunk.

    Attributes:
        keeps: whether anything is kept.
        answered: seconds that the calls took which were answered from what is kept.
    """

    keeps: bool = False
    answered: float = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def tensors(self, kind: str, given: Sequence[Any], compute: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `compute` returns. `given` is all that it depends on: tensors, noise, plain values."""
        return compute()

    def texts(self, kind: str, given: Sequence[Any], compute: Callable[[], list[str] | None]) -> list[str] | None:
        """The same for sentences."""
        return compute()

    def differentiable(
        self, kind: str, x: Tensor, given: Sequence[Any], function: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """function(x), and its gradient for x where one is followed: the backward pass is a call of its own."""
        return function(x)


KEEPS_NOTHING = Journal()


def journaled(view: Any, journal: Journal) -> Any:
    """The same view, of the same class, whose calls are the journal's; as it is where the journal keeps nothing."""
    if not journal.keeps or vars(view).get("journal") is journal:
        return view
    kept = copy.copy(view)  # its parts are shared
    kept.journal = journal
    kept.observe = lambda x, noise: journal.texts("observe", (x, noise), lambda: view.observe(x, noise))
    kept.query = lambda x, noise: journal.tensors("query", (x, noise), lambda: (view.query(x, noise),))[0]
    kept.logits = lambda x, noise, observed=None: journal.differentiable(
        "logits", x, (noise, observed), lambda z: view.logits(z, noise, observed)
    )
    return kept
