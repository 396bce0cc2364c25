"""Contracts that were kept before: the same parts, asked by the same code, are not asked again at every start.

outputs/contracts/<id>.json   what was asked and kept its promises; <id> is its hash. A folder that may be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lgap_bench.attack.problem import Parts, Problem
from lgap_bench.cell.config import Cell
from lgap_bench.cell.identity import contract_identity
from lgap_bench.evaluation.contract import IMAGES, check_contracts, check_gradient
from lgap_bench.evaluation.facts import PACKAGES, installed
from lgap_bench.runtime.device import Device
from lgap_bench.runtime.files import content_id, write_json


def check_once(parts: Parts, cell: Cell, problem: Problem, device: Device) -> None:
    """Raise ValueError for the first promise that a part breaks, unless the same parts were found to keep theirs.

    At a paper's scale the checks take minutes, which a requeued cell, or each shard of one, would pay again. No record
    depends on whether they ran.
    """
    for view, check in ((False, check_contracts), (True, check_gradient)):
        libraries = {name: installed(name) for name in PACKAGES}
        asked = {**contract_identity(cell, IMAGES, device.kind, view), "libraries": libraries}
        file = cell.outputs / "contracts" / f"{content_id(asked)}.json"
        if _kept(file, asked):
            problem.tell("checked before", 1 + view, 2)
            continue
        check(parts, cell, problem)
        with suppress(OSError):  # a note that cannot be written costs time alone
            write_json(file, asked)


def _kept(file: Path, asked: Mapping[str, Any]) -> bool:
    """Whether a file says so; one that is damaged, or was made for other parts, says nothing."""
    try:
        return bool(json.loads(file.read_text()) == json.loads(json.dumps(asked)))
    except (OSError, ValueError):
        return False
