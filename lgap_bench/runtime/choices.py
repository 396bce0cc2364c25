"""Settings that are one of a few words: the words stand in the parameter's `Literal` type and are checked against it.

Without torch, so that a misspelt word is refused before anything heavy is imported.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints


def choices_of(kind: Any) -> tuple[Any, ...]:
    """The values that `Literal["a", "b"]` or `Literal["a", "b"] | None` allows; empty for any other type."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    parts = get_args(kind)
    # `str | None` is no choice: its None must not make it one.
    words = tuple(word for part in parts for word in choices_of(part))
    return (*words, None) if words and NoneType in parts else words


def require_choice(key: str, value: object, kind: Any) -> None:
    """Raise ValueError, naming `key` as the user writes it, unless the type `kind` allows this value."""
    known = choices_of(kind)
    if value not in known:
        *others, last = ("null" if word is None else str(word) for word in known)
        words = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{key}={'null' if value is None else value} is not known: use {words}")


def require_choices(part: object, path: str) -> None:
    """`require_choice` for every field of a dataclass whose type is a choice; `path` is the part's key in a config."""
    for name, kind in get_type_hints(type(part)).items():
        if choices_of(kind):
            require_choice(f"{path}.{name}", getattr(part, name), kind)
