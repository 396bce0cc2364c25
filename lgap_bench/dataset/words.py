"""Words for an image with several things in it."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "a photo of nothing"


def sentence(words: Sequence[str]) -> str:
    """`a photo of a three`, `a photo of a three and a seven`, `a photo of a one, a three and a nine`.

    The words in the order given, each once; `a photo of nothing` of none. Always `a`, never `an`, as CLIP's own templates
    have it. The caption of a scene and the prompt that a purifier makes of what a detector found are both this sentence:
    a text model that learned the one reads the other.
    """
    distinct = [f"a {word}" for word in dict.fromkeys(words)]
    if not distinct:
        return NOTHING
    *before, last = distinct
    return f"a photo of {', '.join(before)} and {last}" if before else f"a photo of {last}"
