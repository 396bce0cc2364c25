"""Numbers in sentences: a paragraph or list item that ends in `<!-- numbers: lgap-1-digits,lgap-3-digits -->` may say no
number with one decimal that stands in none of these pages' records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from scripts.docs.kept import Kept, read

MARK = re.compile(r"<!-- numbers: (?P<names>[\w,-]+) -->")
CHUNK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\n(?=\|)")  # paragraphs, list items, rows
NUMBER = re.compile(r"(?<![\w./-])\d{1,3}\.\d(?![\d/]|\.\d)")


def unsupported(text: str, find: Callable[[str], Kept] = read) -> list[str]:
    """Every number of a marked paragraph that no record supports, with the words before it."""
    found = []
    for chunk in CHUNK.split(text):
        if (mark := MARK.search(chunk)) is None:
            continue
        known = numbers([find(name) for name in mark["names"].split(",")])
        said = chunk[: mark.start()]
        found += [said[max(each.start() - 40, 0) : each.end()].replace("\n", " ") for each in NUMBER.finditer(said) if each[0] not in known]  # fmt: skip
    return found


def numbers(pages: Sequence[Kept]) -> set[str]:
    """All numbers of some pages' rows as a reader sees them."""
    rows = [row for kept in pages for table in kept.page.tables for row in table.rows]
    return {f"{float(value):.1f}" for row in rows for value in row.values() if isinstance(value, float)}
