"""Figures as pictures inside a page of HTML: SVG whose text stays text and whose names clash with no other figure's."""

from __future__ import annotations

import io
import re
from typing import Any

LARGEST = 400_000  # bytes; a figure of more is one of many pictures, and stands as a file in <outputs>/tables/


def inline(drawn: Any, name: str) -> str | None:
    """A matplotlib figure as `<svg ...>`; None where it would be too large. `name`: of letters and digits, its own."""
    import matplotlib

    stream = io.StringIO()
    # Text as text: it is read aloud, found and printed sharp, and it takes a tenth of the room of drawn letters.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawn.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # A style of an SVG holds for the whole page.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = re.sub(r'^<svg ([^>]*?)width="[^"]*" ', r'<svg aria-hidden="true" stroke-linejoin="round" \1', text)
    text = re.sub(r'^<svg ([^>]*?)height="[^"]*" ', r"<svg \1", text)
    return text if len(text) <= LARGEST else None
