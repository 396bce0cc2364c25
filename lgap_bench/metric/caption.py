"""Does the caption name the class? The paper's premise, measured on clean and on attacked images."""

from __future__ import annotations

import re
from collections.abc import Sequence


def names_label(caption: str, label: int, classes: Sequence[str]) -> bool:
    """Whether the class's name stands in the caption as a whole word (or phrase), in any case."""
    return re.search(rf"\b{re.escape(classes[label].lower())}\b", caption.lower()) is not None
