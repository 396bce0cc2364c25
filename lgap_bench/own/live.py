"""What a record's config names where a part lived in somebody's Python process: nothing that can be built again.

`sha256` identifies it: a defense by its answers, gradient, weights and code; images and labels by their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

AGAIN = "it lived in a Python process, and a config cannot build it: call lgap_bench.evaluate(...) again"


def part(sha256: str) -> NoReturn:
    """A classifier or purifier. Raises ValueError."""
    raise ValueError(f"part {sha256[:16]}: {AGAIN}")


def images(sha256: str, split: str, classes: Sequence[str]) -> NoReturn:
    """A data set. Raises ValueError."""
    raise ValueError(f"images {sha256[:16]}: {AGAIN}")
