"""Models that are published in one file, converted once into the user's cache and found there from then on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lgap_bench.runtime import sources, weights
from lgap_bench.runtime.files import write_json
from lgap_bench.runtime.worker import this_worker

VERSION = 1  # raised with every change of a conversion's result
PROOF = "converted.json"  # beside the result: SHA-256 of the source and of every file


def folder_of(name: str, write: Callable[[Path, Path], object], tag: str = "") -> str:
    """What a loader reads: `name` itself, or of a single file the folder that `write(file, folder)` makes of it.

    The folder is called by the file's SHA-256, so another file under the same name is another folder; `tag` tells apart
    what is made of one file in different ways.
    Raises ValueError for a file that is damaged, for a result that was changed, and where the cache cannot be written.
    """
    file = weights.place(name)
    if not file.is_file() or file.suffix not in weights.SINGLE:
        return name
    weights.inspect(name)
    folder = sources.cache_home() / "converted" / f"{weights.sha256(file)[:24]}-{VERSION}{tag}"
    if not folder.exists():
        _convert(name, file, folder, write)
    _check(name, folder)
    return str(folder)


def _convert(name: str, file: Path, folder: Path, write: Callable[[Path, Path], object]) -> None:
    """Into a folder of this process's own, which takes its place when it is whole."""
    partial = folder.with_name(f"{folder.name},{this_worker().name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        write(file, partial)
        digests = {each.relative_to(partial).as_posix(): weights.sha256(each) for each in weights.files(partial)}
        write_json(partial / PROOF, {"source": file.name, "sha256": weights.sha256(file), "files": digests})
        if not folder.exists():  # another process may have been quicker, with the same result
            os.replace(partial, folder)
    except OSError as error:
        raise ValueError(
            f"weights={name}: its conversion cannot be written to {folder.parent} ({error.strerror or error}): free some space, "
            "or set LGAP_BENCH_CACHE to another folder"
        ) from None
    except ValueError as error:
        raise ValueError(f"weights={name}: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(name: str, folder: Path) -> None:
    try:
        digests = json.loads((folder / PROOF).read_text())["files"]
        wrong = [each for each, digest in digests.items() if weights.sha256(folder / each) != digest]
    except (OSError, ValueError, LookupError):
        wrong = [PROOF]
    if wrong:
        raise ValueError(
            f"weights={name}: {folder / wrong[0]} in the cache is not what was converted: delete {folder}, it is made again"
        )
