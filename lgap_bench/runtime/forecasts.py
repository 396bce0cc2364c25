"""What was forecast of a record, by its id: written before it is measured, and kept in it when it is.

outputs/forecasts/<id>.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lgap_bench.runtime.files import write_json


def keep(outputs: Path, record: str, told: Mapping[str, Any]) -> None:
    """Write it down; what cannot be written is lost, since it was told already."""
    with suppress(OSError):
        write_json(outputs / "forecasts" / f"{record}.json", told)


def kept(outputs: Path, record: str) -> dict[str, Any] | None:
    """What was forecast of this record; None where nothing was, or it cannot be read."""
    try:
        held = json.loads((outputs / "forecasts" / f"{record}.json").read_text())
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None
