"""Pin the code of this release: `python -m scripts.release` writes lgap_bench/runtime/released.json, `--check` compares.

A record's identity names every module behind it that is not as it stands there. Whoever edits a module calls this before
the commit, and raises NUMERICS_VERSION where numbers change.
"""

from __future__ import annotations

import json
import sys

from lgap_bench.runtime import code
from lgap_bench.runtime.files import write_text


def main(arguments: list[str]) -> None:
    """Write the manifest, or exit 1 where it is not that of the code."""
    found = code.manifest()
    # One line per module, so that a change of one is a change of one line.
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in found.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if "--check" not in arguments:
        write_text(code.MANIFEST, text)
    elif not code.MANIFEST.exists() or code.MANIFEST.read_text() != text:
        sys.exit("lgap_bench/runtime/released.json is not that of the code: call python -m scripts.release")


if __name__ == "__main__":
    main(sys.argv[1:])
