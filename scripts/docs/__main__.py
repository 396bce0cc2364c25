"""Make the tables and figures of docs/ from docs/records/, or gather these records anew.

python -m scripts.docs                                      # what `make docs` does
python -m scripts.docs check                                # exit 1 where a page is stale, and change nothing
python -m scripts.docs gather outputs                       # every measured item that a page shows
python -m scripts.docs gather outputs lgap/1 lgap/claims    # these alone
python -m scripts.docs gather outputs demo forecasts        # what is no item of a paper; forecasts only where they are named
python -m scripts.docs gather outputs commit=7cf6d3d        # measured at another commit than the one checked out
"""

from __future__ import annotations

import sys
from pathlib import Path

from lgap_bench.runtime import files
from lgap_bench.runtime.errors import one_line_errors
from scripts.docs import blocks, figures, prose
from scripts.docs.gather import gather
from scripts.docs.kept import read


def main() -> None:
    """The three calls above."""
    words = sys.argv[1:]
    if words[:1] == ["gather"] and len(words) > 1:
        commit = next((word.partition("=")[2] for word in words if word.startswith("commit=")), "")
        for path in gather(
            Path(words[1]), [word for word in words[2:] if "=" not in word], commit, shown=blocks.shown()
        ):
            print(path)
        make()
        print(*mistold(), sep="\n")
    elif words == ["check"]:
        if left := stale():
            sys.exit("\n".join(left))
    elif words:
        raise ValueError(f"{' '.join(words)} is not known: python -m scripts.docs [check | gather OUTPUTS [ITEM ...]]")
    else:
        make()


def make() -> None:
    """Write every page whose blocks changed, and every figure whose rows did."""
    for page in blocks.pages():
        text = page.read_text()
        if (anew := blocks.made(text)) != text:
            files.write_text(page, anew)
            print(f"written: {page}")
    for name, path in figures.pictured():
        kept = read(name)
        if not path.exists() or figures.sealed(path) != kept.seal:
            if (drawn := figures.draw(kept)) is None:
                raise ValueError(f"{path} is of other records than docs/records/{name}.json: gather it anew")
            print(f"written: {figures.save(drawn, path, kept)}")


def stale() -> list[str]:
    """What `make docs` would change, and numbers in sentences that it cannot, in words."""
    found = [f"{page}: stale" for page in blocks.pages() if blocks.made(text := page.read_text()) != text]
    for name, path in figures.pictured():
        if not path.exists() or figures.sealed(path) != read(name).seal:
            found.append(f"{path}: stale")
    return found + mistold()


def mistold() -> list[str]:
    """Numbers in marked sentences that no record supports any more: a person has to mend them."""
    return [
        f"{page}: no record says: {words}" for page in blocks.pages() for words in prose.unsupported(page.read_text())
    ]


if __name__ == "__main__":
    one_line_errors(main)
