"""What a record says of its cell beside the numbers: names, view, stages; and of the run: when, how long, with what."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lgap_bench import __version__
from lgap_bench.cell.about import about
from lgap_bench.cell.config import Cell
from lgap_bench.finetune.stage import summaries
from lgap_bench.record import Chunk
from lgap_bench.runtime.device import Device

# What a part of the purifier observes without gradient, so that the exact one takes it for constant.
FIXED = {"detector": ", mask and text fixed", "captioner": ", caption fixed"}
PACKAGES = ("torch", "diffusers", "transformers", "pyautoattack", "torchattacks", "torchsde")


def cell_facts(cell: Cell, name: str, device: Device, classes: Sequence[str]) -> dict[str, Any]:
    """The part of summary.json that is no measurement; `name` is the record's id."""
    names = {f"{key}_name": value for key, value in asdict(cell.names).items() if key != "experiment"}
    facts = {"id": name, "n": cell.n, "seed": cell.seed, "norm": cell.threat["norm"], "eps": str(cell.threat["eps"])}
    return {**facts, **names, "view": shown_view(cell), "stages": summaries(cell, device), "classes": list(classes)}


def shown_view(cell: Cell) -> str:
    """The view as it has to be read: under `full` a caption, or a mask, is observed anew on every iterate and fixed within a step.

    A guidance that hides its gradient by itself (`detach_guidance`) leaves no view exact.
    """
    view = cell.names.view
    exact = view in ("full", "detached")
    fixed = next((text for part, text in FIXED.items() if exact and cell.purifier.get(part) is not None), "")
    hides = (cell.purifier.get("guidance") or {}).get("detach_guidance", False)
    hidden = hides and view in ("full", "surrogate", "adjoint")
    shown: str = about(cell.view, "shown", view)
    return shown + (", guidance hidden" if hidden else "") + fixed


def run_facts(chunks: Sequence[Chunk], began: float, device: Device) -> dict[str, Any]:
    """run.json: nothing that identifies, neither a cell nor a machine. `began` is the call's `time.monotonic()`.

    `seconds` are the chunks', whoever computed them and however many did so at once; `seconds_of_last_call` are those of the
    call that made the record whole, its start and its waiting included. `processor_seconds` are those that the process worked,
    all its threads together: what others on the machine took is not in them.
    """
    seconds = [round(float(chunk["seconds"]), 3) for chunk in chunks]
    # Chunks of earlier versions have neither.
    worked = [float(chunk["processor_seconds"]) for chunk in chunks if "processor_seconds" in chunk]
    memory = [float(chunk["peak_memory_mib"]) for chunk in chunks if "peak_memory_mib" in chunk]
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": round(sum(seconds), 3),
        "chunk_seconds": seconds,
        "processor_seconds": round(sum(worked), 3) if len(worked) == len(chunks) else None,
        "peak_memory_mib": max(memory, default=None),
        "chunk_peak_memory_mib": memory,
        "seconds_of_last_call": round(time.monotonic() - began, 3),
        "device": device.kind,
        "lgap-bench": __version__,
        "python": sys.version.split()[0],
        **{name: installed(name) for name in PACKAGES},
    }


def installed(name: str) -> str | None:
    """A library's version, or None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:  # autoattack itself may stand in for pyautoattack
        return None
