"""What Hydra's sweeper tells: the jobs of a sweep, written down before they start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lgap_bench.sweep.status import SweepFolder


def announced(config: Any, batch: Sequence[Sequence[str]]) -> None:
    """Write down the jobs of a batch; a later batch follows those before it."""
    folder = SweepFolder(Path(str(config.hydra.sweep.dir)))
    head = folder.head()
    first = int(head.get("announced", 0))
    folder.announce(first, batch)
    folder.write_head({**folder.head(), "announced": first + len(batch), "launcher": launcher_name(config)})


def launcher_name(config: Any) -> str:
    """The name of the chosen launcher."""
    return str(config.hydra.runtime.choices.get("hydra/launcher", "basic"))
