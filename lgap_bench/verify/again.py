"""The record's own cell once more, with its kept images in place of the attack: what has to be the same, and is it?"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lgap_bench import __version__
from lgap_bench.cell.check import check, require_files
from lgap_bench.cell.config import Cell
from lgap_bench.cell.identity import identity
from lgap_bench.cell.restore import part, require_known, restored
from lgap_bench.finetune.stage import folder_of, summaries
from lgap_bench.record import Record
from lgap_bench.runtime.device import Device
from lgap_bench.verify.archive import WEIGHTS

NUMBERS = ("seed", "device", "outputs", "threads", "max_rows", "data", "checkpoints")  # what may differ from the record
FOLDERS = {"data": "LGAP_BENCH_DATA", "checkpoints": "LGAP_BENCH_CHECKPOINTS"}  # and where they lie here, if it says so
OUTPUTS = "outputs"  # the record's own may be a folder of another machine, and a stranger chose it
# Of an identity: the attack's own, and what may differ between two machines or releases and is told.
ATTACKS = ("attack", "view", "seed", "unrelated", "order")
TOLD = ("device", "numerics_version", "code")
SEEDS = 2**32


def again(record: Record, words: Mapping[str, Any], seed: int, trusted: tuple[str, ...] = ()) -> Cell:
    """The cell that scores a record's images on another seed's draws, checked but for its data.

    Args:
        words: keys of NUMBERS, and dotted ones that hold a path (`classifier.weights`): where the same files lie here.
        trusted: packages whose code the record may name, beside this release's.

    Raises ValueError in one line for what cannot be built here, and for a seed that the record was scored with.
    """
    plain = record.config()
    require_known(plain, trusted)
    plain = placed(plain, words)
    if seed == record.summary()["seed"]:
        raise ValueError(f"seed={seed} is the record's own: its draws are those that were scored, choose another seed")
    cell = restored(plain)
    cores = os.cpu_count() or 1
    own: dict[str, Any] = {"seed": seed, "keep_images": False, "export": False, "dry": False}
    if cell.threads is not None and cell.threads > cores and "threads" not in words:
        own["threads"] = None  # of another machine
    images = {**part("attack", "given"), "file": str(record.folder / "images.npz")}
    names = replace(cell.names, attack="given", view="none", experiment=None)
    cell = replace(cell, attack=images, view=part("view", "none"), names=names, **own)
    cell = replace(cell, numbers={**cell.numbers, **own})
    check(cell)
    require_files(cell)
    return cell


def require_same(record: Record, cell: Cell, device: Device) -> None:
    """Raise ValueError for data, weights or settings that are not the record's; the first one by name."""
    theirs, ours = (_flat(_defense(each)) for each in (record.identity(), identity(cell, device.kind)))
    for key in sorted(theirs.keys() | ours.keys()):
        if (there := theirs.get(key)) != (here := ours.get(key)):
            weights = key.rsplit(".", 1)[-1] in WEIGHTS
            mend = (
                f"say where the record's own lies, {key}=PATH" if weights else "give the files that it was measured on"
            )
            raise ValueError(
                f"record {record.folder.name} is of {key}={_shown(there)}, here it is {_shown(here)}: {mend}"
            )


def require_same_training(record: Record, cell: Cell, device: Device, made: bool) -> None:
    """Raise ValueError where a stage gave other weights here than where the record was made.

    `made`: whether they are there by now; before that, those that were trained earlier are looked at.
    """
    wanted = record.summary().get("stages", {})
    if not made and not all((folder_of(cell, name, device) / "summary.json").exists() for name in cell.stages):
        return
    for name, found in summaries(cell, device).items():
        if wanted.get(name, {}).get("sha256") != found["sha256"]:
            raise ValueError(
                f"record {record.folder.name}: {name} gave other weights here ({_shown(found['sha256'])}) than there "
                f"({_shown(wanted.get(name, {}).get('sha256'))}): copy {folder_of(cell, name, device)} from the machine that made it"
            )


def differences(record: Record, cell: Cell, device: Device) -> list[str]:
    """In words, what is not as where the record was made and may change a number a little."""
    theirs, ours, run = record.identity(), identity(cell, device.kind), record.run()
    found = []
    if theirs.get("device") != ours["device"]:
        found.append(f"made on {theirs.get('device')}, scored again on {ours['device']}")
    if (release := run.get("lgap-bench")) != __version__:
        found.append(f"made by lgap-bench {release}, this is {__version__}")
    if theirs.get("numerics_version") != ours["numerics_version"]:
        found.append(f"made with numerics {theirs.get('numerics_version')}, these are {ours['numerics_version']}")
    there, here = theirs.get("code") or {}, ours.get("code") or {}
    changed = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if changed:
        found.append(f"code that is not the same: {', '.join(changed[:3])}" + (", ..." if len(changed) > 3 else ""))
    return found


def placed(plain: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the paths and settings of this machine."""
    held: dict[str, Any] = json.loads(json.dumps(plain))  # a copy of its own
    own = {key: os.environ[variable] for key, variable in FOLDERS.items() if os.environ.get(variable)}
    words = {"outputs": OUTPUTS, **own, **words}
    for key in FOLDERS:
        if key in words:
            held = _moved(held, str(held.get(key, key)), str(words[key]))
    for key, value in words.items():
        *above, last = key.split(".")
        node: Any = held
        for name in above:
            node = node.get(name) if isinstance(node, dict) else None
        if above and not (isinstance(node, dict) and isinstance(node.get(last), str)):
            raise ValueError(f"{key}={value}: the record's config has no path of that name: see its config.yaml")
        node[last] = value
    return held


def _moved(node: Any, old: str, new: str) -> Any:
    """A config whose paths below one folder lead below another."""
    if isinstance(node, dict):
        return {key: _moved(child, old, new) for key, child in node.items()}
    if isinstance(node, list):
        return [_moved(child, old, new) for child in node]
    below = isinstance(node, str) and (node == old or node.startswith(f"{old}/"))
    return new + node[len(old) :] if below else node


def _defense(identity_: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in identity_.items() if key not in (*ATTACKS, *TOLD)}


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {path: node}
    found: dict[str, Any] = {}
    for key, child in node.items():
        found |= _flat(child, f"{path}.{key}" if path else key)
    return found


def _shown(value: Any) -> str:
    """A value, a digest or longer text by its beginning."""
    text = "none" if value is None else str(value)
    return f"{text[:12]}..." if len(text) > 40 else text
