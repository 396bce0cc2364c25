"""The words of a config's `limits`: which values a key may have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_INTERVAL = re.compile(r"(int )?([\[(])([^,]+), ([^\])]+)([\])])")


def refuse_beyond(node: Mapping[Any, Any], path: str = "") -> None:
    """Raise ValueError for the first value in a config, at any depth, that the `limits` beside it forbid."""
    for key, limit in node.get("limits", {}).items():
        if not within(node.get(key), limit):
            value = "null" if node.get(key) is None else node[key]
            raise ValueError(f"{path}{key}={value} is not in {limit}: see the comment beside it in conf/")
    for key, child in node.items():
        if isinstance(child, dict) and key != "limits":
            refuse_beyond(child, f"{path}{key}.")


def within(value: object, limit: str) -> bool:
    """Whether a value obeys a limit: `[1, inf)`, `int (0, 5]`, `a | b | c`, each possibly followed by `or null`."""
    if limit.endswith(" or null"):
        return value is None or within(value, limit.removesuffix(" or null"))
    interval = _INTERVAL.fullmatch(limit)
    if interval is None:
        choices = [choice.strip() for choice in limit.split("|")]
        return (str(value).lower() if isinstance(value, bool) else value) in choices
    whole, left, low, high, right = interval.groups()
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    above = value >= float(low) if left == "[" else value > float(low)
    return above and (value <= float(high) if right == "]" else value < float(high))
