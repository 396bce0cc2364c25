"""Whether a config's value is of the type that a part's code asks for, and that type in words."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from lgap_bench.cell.values import fraction

PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", types.NoneType: "null"}


def fits(value: object, hint: Any) -> bool:
    """Whether a value, as YAML gives it, may be an argument of this type.

    Only types that YAML can hold are judged; anything else (a network, a part that is built from its own config) fits.
    A whole number is a number, and so is `8/255`; a truth value is neither.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is typing.Literal:
        return value in inner
    if isinstance(value, Mapping) and "_target_" in value:
        return hint not in PLAIN
    if hint in PLAIN:
        if hint is float and isinstance(value, str):
            return _written(value)
        allowed = (int, float) if hint is float else hint
        return isinstance(value, allowed) and (hint is bool or not isinstance(value, bool))
    if origin in (list, tuple, Sequence):
        each = inner[0] if inner and (origin is not tuple or inner[1:] == (...,)) else Any
        return isinstance(value, list) and all(fits(child, each) for child in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return True


def worded(hint: Any) -> str:
    """A type in words: `a text or null`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(worded(each) for each in inner)
    if origin is typing.Literal:
        return " or ".join(str(each) for each in inner)
    if origin in (list, tuple, Sequence):
        return "a list" + (f" of which each is {worded(inner[0])}" if inner and inner[0] in PLAIN else "")
    if origin in (dict, Mapping):
        return "a mapping"
    return PLAIN.get(hint, getattr(hint, "__name__", str(hint)))


def _written(value: str) -> bool:
    """Whether a text is a number as people write budgets: `8/255`, `eps/4`."""
    try:
        return isinstance(fraction(value, "", 1.0), float)
    except ValueError:
        return False
