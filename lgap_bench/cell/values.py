"""Values as people write them in configs: numbers such as `8/255` and `eps/4`, and the limits that keys obey."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

ABOUT = "_about_"  # what describes a part in its YAML, see `about`
_RATIO = re.compile(r"\s*([0-9.eE+-]+|eps)\s*(?:/\s*([0-9.eE+-]+))?\s*")
_INTERVAL = re.compile(r"(int )?([\[(])([^,]+), ([^\])]+)([\])])")
_CHOICES = re.compile(r"[\w.+:-]+(\s*\|\s*[\w.+:-]+)*")
_BESIDE = ("null", "auto")  # words that a limit may allow beside its own values


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


def check_limits(node: Mapping[Any, Any], path: str = "") -> None:
    """Raise ValueError for the first value in a config, at any depth, that its part's limits forbid."""
    for key, limit in node.get(ABOUT, {}).get("limits", {}).items():
        if not satisfies(node.get(key), limit):
            value = "null" if node.get(key) is None else node[key]
            raise ValueError(f"{path}{key}={value} is not in {limit}: see the comment beside it in conf/")
    for key, child in node.items():
        if isinstance(child, dict) and key != ABOUT:
            check_limits(child, f"{path}{key}.")


def satisfies(value: object, limit: str) -> bool:
    """Whether a value obeys a limit: `[1, inf)`, `int (0, 5]`, `a | b | c`, each possibly followed by `or null` or `or auto`.

    `cuda:N` among the words stands for any number: `cuda:1`.
    """
    for word in _BESIDE:
        if limit.endswith(f" or {word}"):
            return value == (None if word == "null" else word) or satisfies(value, limit.removesuffix(f" or {word}"))
    interval = _INTERVAL.fullmatch(limit)
    if interval is None:
        shown = str(value).lower() if isinstance(value, bool) else value
        numbered = re.sub(r":\d+$", ":N", value) if isinstance(value, str) else value
        return shown in choices(limit) or numbered in choices(limit)
    whole, left, low, high, right = interval.groups()
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    above = value >= float(low) if left == "[" else value > float(low)
    return above and (value <= float(high) if right == "]" else value < float(high))


def choices(limit: str) -> list[str]:
    """The words of a limit `a | b | c`, without its `or null`."""
    return [choice.strip() for choice in limit.removesuffix(" or null").split("|")]


def is_limit(limit: object) -> bool:
    """Whether a limit is one of the forms that `satisfies` knows: a blank too few would make an interval one odd word."""
    if not isinstance(limit, str):
        return False
    bare = limit.removesuffix(" or null").removesuffix(" or auto")
    interval = _INTERVAL.fullmatch(bare)
    if interval is None:
        return _CHOICES.fullmatch(bare) is not None
    try:
        return float(interval[3]) <= float(interval[4])
    except ValueError:
        return False
