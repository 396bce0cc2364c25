"""Models of the hub by name, `owner/name` or `owner/name@revision`, as they lie in its cache on this machine.

Nothing here touches a network. The cache is huggingface_hub's own, so HF_HOME and HF_HUB_CACHE move it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
MAIN = "main"


@dataclass(frozen=True)
class HubName:
    """A repository of the hub and the revision that was asked for, None for the one that the manifest pins."""

    repo: str
    revision: str | None = None


def parse(weights: str) -> HubName | None:
    """`owner/name@revision` taken apart; None for what is no such name. It may still be a relative path of that form."""
    match = _NAME.fullmatch(weights)
    return HubName(match[1], match[2]) if match and ".." not in weights else None


def cache() -> Path:
    """The hub's cache folder."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def snapshot(repo: str, revision: str) -> Path | None:
    """The folder of a repository's revision (a commit, branch or tag) in the cache; None where it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, cache_dir=cache(), local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, FileNotFoundError, ValueError):
        return None
