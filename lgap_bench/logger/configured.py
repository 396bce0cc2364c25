"""The loggers that a config names: `logger=console`, `logger=none`, `logger=[console,...]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lgap_bench.cell.instantiate import instantiate
from lgap_bench.logger.base import Loggers


def configured(group: Mapping[str, Any] | None) -> Loggers:
    """One logger per entry of the group that names code. Raises ValueError for an entry that does not."""
    loggers = []
    for name, config in (group or {}).items():
        if not isinstance(config, Mapping) or "_target_" not in config:
            raise ValueError(f"logger.{name}={config} names no code: choose loggers by their group, logger=[console]")
        loggers.append(instantiate(dict(config)))
    return Loggers(loggers)
