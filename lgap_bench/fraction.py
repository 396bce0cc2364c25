"""Numbers as people write them in configs: `8/255`, `0.5`, `eps/4`. Without torch, so that errors come at once."""

from __future__ import annotations

import re

_RATIO = re.compile(r"\s*([0-9.eE+-]+|eps)\s*(?:/\s*([0-9.eE+-]+))?\s*")


def fraction(value: str | float, key: str, eps: float | None = None) -> float:
    """`8/255` -> 0.03137...; `eps/4` where `eps` is given; plain numbers pass. Raises ValueError naming `key`."""
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{key}={value} is not a number: write 8/255 or 0.5")
    match = _RATIO.fullmatch(value if isinstance(value, str) else repr(value))
    try:
        if match is None:
            raise ValueError
        top = eps if match[1] == "eps" else float(match[1])
        if top is None:
            raise ValueError
        return top / float(match[2] or 1)
    except (ValueError, ZeroDivisionError):
        hint = "8/255 or 0.5" if eps is None else "2/255, 0.01 or eps/4"
        raise ValueError(f"{key}={value} is not a number: write {hint}") from None
