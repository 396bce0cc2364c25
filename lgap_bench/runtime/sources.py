"""The manifest of sources, conf/sources.yaml: where models and data come from, and the command that fetches them. Without torch.

Beside it stands what was first seen of every source without a published checksum, in the user's cache: the commit of a
branch, the SHA-256 of each file. Both are held to from then on.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgap_bench import CONF
from lgap_bench.runtime import hub
from lgap_bench.runtime.files import write_json

KINDS = (
    "url",
    "gdrive",
    "robustbench",
    "torchvision",
    "made",
    "hand",
)  # in this order of a source's keys; else the hub
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """One entry of the manifest.

    Attributes:
        name: what a config says: a hub's repository, or a path below `checkpoints` or `data`; a data set's name.
        kind: how it is fetched: `hub` or one of KINDS.
        data: whether it is a data set, or lies below `data`; else it is a model, below `checkpoints`.
        at: of that kind: an address, an id, a class, a sentence.
        size: bytes, about.
        revision, files: of the hub: which commit or branch, patterns of the files that are wanted.
        sha256: published, whole or its first digits; None where none is.
        was: the folder's name below `checkpoints` before it had this name.
        holds: what has to lie below a data set's root.
        instead: what stands in for a thing without a public link.
    """

    name: str
    kind: str
    at: str
    data: bool
    size: int
    licence: str
    needed: str
    revision: str = hub.MAIN
    files: tuple[str, ...] = ()
    sha256: str | None = None
    was: str | None = None
    holds: str = "."
    instead: str | None = None


@functools.lru_cache(maxsize=1)
def manifest() -> Mapping[str, Source]:
    """Every source by its name; data sets and their files too."""
    import yaml

    held = yaml.safe_load((CONF / "sources.yaml").read_text())
    return {name: _source(name, entry, part) for part in held for name, entry in held[part].items()}


def _source(name: str, entry: Mapping[str, Any], part: str) -> Source:
    kind = next((each for each in KINDS if each in entry), "hub")
    own = {
        key: entry[key]
        for key in ("licence", "needed", "revision", "sha256", "was", "holds", "instead")
        if key in entry
    }
    return Source(
        name,
        kind,
        str(entry.get(kind, name)),
        part == "data",
        entry["bytes"],
        files=tuple(entry.get("files", ())),
        **own,
    )


def of(value: str) -> Source | None:
    """The source of what a config says under `weights`, `file` or a data set's name; None for a user's own."""
    known, name = manifest(), hub.parse(value)
    if name and name.repo in known:
        return known[name.repo]
    parts = Path(value).parts  # a folder comes before: ${checkpoints}, ${data}
    for start in range(len(parts)):
        if (found := known.get("/".join(parts[start:]))) is not None and (found.kind != "hub" or start == 0):
            return found
    return None


def revision(repo: str) -> str:
    """The revision of a hub's repository: pinned in the manifest, else the commit that was first seen, else its main branch."""
    source = manifest().get(repo)
    pinned = source.revision if source else hub.MAIN
    return pinned if _COMMIT.fullmatch(pinned) else seen().get(repo, {}).get("revision", pinned)


def mend(value: str, root: str | None = None) -> str:
    """What to do about a missing thing, as the end of a sentence."""
    source = of(value)
    if source is None:
        return f"lgap-bench fetch {value}" if hub.parse(value) else "give a path that exists"
    if source.kind == "hand":
        also = f"; instead: {source.instead}" if source.instead else ""
        return f"it has to be got by hand: {source.at}{also}"
    where = _root(value, source)
    return f"lgap-bench fetch {source.name}" + (f" checkpoints={where}" if where else "")


def _root(value: str, source: Source) -> str | None:
    """The folder of models that a path lies in, where `fetch` would not look by itself."""
    given = value.removesuffix(source.name).rstrip("/")
    usual = os.environ.get("LGAP_BENCH_CHECKPOINTS", "checkpoints")
    return None if source.kind == "hub" or given in ("", usual) or given == value else given


def at_home(value: str, checkpoints: str) -> str:
    """What a config says, or the folder that a user already has of it below `checkpoints`: by its old name or its own."""
    source = manifest().get(value) or manifest().get(value.removeprefix(f"{checkpoints}/"))
    if source is None:
        return value
    for name in (source.was, source.name):
        if name and (folder := Path(checkpoints).expanduser() / name).is_dir():
            return str(folder)
    return value


def cache_home() -> Path:
    """The user's cache: LGAP_BENCH_CACHE, else lgap-bench in XDG_CACHE_HOME, else in ~/.cache. It may be deleted at any time."""
    base = os.environ.get("LGAP_BENCH_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "lgap-bench"
    return Path(base).expanduser()


def seen() -> dict[str, dict[str, Any]]:
    """What was first seen, by source: `revision`, and `files` with their SHA-256."""
    try:
        held: dict[str, dict[str, Any]] = json.loads((cache_home() / "seen.json").read_text())
    except (OSError, ValueError):
        return {}
    return held


def check_seen(name: str, digests: Mapping[str, str], commit: str | None = None, published: Sequence[str] = ()) -> None:
    """Hold a source's files to their published or first seen SHA-256, and keep what is seen for the first time.

    `digests`: SHA-256 by file; `commit`: of the hub's repository, kept once for a branch. Raises ValueError for another content.
    """
    held = seen()
    entry = held.get(name, {"files": {}})
    for file, digest in digests.items():
        known = entry["files"].get(file)
        if commit in (None, entry.get("revision")) and known not in (None, digest):
            raise ValueError(
                f"{name}: {file} has SHA-256 {digest[:16]}..., and {known[:16]}... was first seen: it was changed or damaged; "
                f"delete it and fetch it again, or its entry in {cache_home() / 'seen.json'} if the change is meant"
            )
        if published and not any(digest.startswith(each) for each in published):
            raise ValueError(
                f"{name}: {file} has SHA-256 {digest[:16]}..., and {published[0][:16]} is published: it was changed or damaged; "
                "delete it and fetch it again"
            )
    fresh = {"files": {**entry["files"], **digests}} | ({"revision": commit} if commit else {})
    if fresh != entry:
        write_json(cache_home() / "seen.json", {**held, name: fresh})
