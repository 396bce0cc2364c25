"""Numbers in sentences: a paragraph or list item that ends in `<!-- numbers: lgap-1-digits,lgap-3-digits -->` may say no number
with one decimal, and no whole percent, that stands in none of these pages' records. Not asked while one of them is to be gathered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import ceil, floor

from scripts.docs.blocks import pages, pending
from scripts.docs.kept import Kept, read

MARK = re.compile(r"<!-- numbers: (?P<names>[\w,-]+) -->")
CHUNK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\n(?=\|)")  # paragraphs, list items, rows
NUMBER = re.compile(r"(?<![\w./-])\d{1,3}\.\d(?![\d/]|\.\d)|(?<![\w./–-])\d{1,3}(?=\s%)")


def unsupported(text: str, find: Callable[[str], Kept] = read) -> list[str]:
    """Every number of a marked paragraph that no record supports, with the words before it."""
    found, waits = [], pending(text).union(*(pending(page.read_text()) for page in pages()))
    for chunk in CHUNK.split(text):
        if (mark := MARK.search(chunk)) is None:
            continue
        names = mark["names"].split(",")
        if waits & set(names):
            continue
        known = numbers([find(name) for name in names])
        said = chunk[: mark.start()]
        found += [said[max(each.start() - 40, 0) : each.end()].replace("\n", " ") for each in NUMBER.finditer(said) if each[0] not in known]  # fmt: skip
    return found


def numbers(held: Sequence[Kept]) -> set[str]:
    """All numbers of some pages' rows as a reader sees them."""
    rows = [row for kept in held for table in kept.page.tables for row in table.rows]
    values = [value for row in rows for value in row.values()]
    told = {
        each for value in values if isinstance(value, str) for each in re.findall(r"\d+\.\d\b|(?<=[<>] )\d+", value)
    }
    known = [float(value) for value in values if isinstance(value, float)] + [float(each) for each in told]
    whole = {
        str(rounded) for value in known for rounded in (floor(value + 0.5), ceil(value - 0.5))
    }  # a half, either way
    return told | whole | {f"{value:.1f}" for value in known}
