"""An entry per record: what it is, what it found, the command that repeats it, and its config."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lgap_bench.record import CONFIG, Record
from lgap_bench.report.page import judged, shown
from lgap_bench.report.rows import brief

PLACES = ("outputs", "logger", "threads", "device", "shard", "shards")  # words that say where, not what
LIVE = "lgap_bench.own.live.part"  # what a part that came from Python has for an address
BYTES = 1_000_000  # of all configs of a page


@dataclass(frozen=True)
class Entry:
    """A record as its entry shows it; `config` is None where the page has no room for it."""

    id: str
    title: str
    commands: Sequence[str]
    note: str
    numbers: str
    verdict: str
    reasons: Sequence[str]
    facts: Sequence[tuple[str, str]]
    folder: str
    config: str | None


def entries(found: Sequence[Record], room: int = BYTES) -> list[Entry]:
    """The entries, with configs as long as they fit into `room` bytes."""
    made = []
    for record in found:
        config = (record.folder / CONFIG).read_text(errors="replace")
        room -= len(config)
        made.append(_entry(record, config if room >= 0 else None))
    return made


def title(record: Record) -> str:
    """`lgap + digits/standard on digits, full (view full), linf 48/255, n = 64, seed 0`."""
    s = record.summary()
    defense = s["classifier_name"] if s["purifier_name"] == "none" else f"{s['purifier_name']} + {s['classifier_name']}"
    defense = ", ".join([defense, *(f"{stage} {s[f'{stage}_name']}" for stage in s.get("stages", ()))])
    return f"{defense} on {s['dataset_name']}, {s['attack_name']} (view {s['view']}), {s['norm']} {brief(s['eps'])}, n = {s['n']}, seed {s['seed']}"


def commands(record: Record) -> list[str]:
    """The calls that came to this record, without what says where it lies; none for parts that came from Python."""
    if _live(record.identity()):
        return []
    calls = []
    for each in record.requests():
        words = [word for word in each["overrides"] if word.lstrip("+").split("=")[0].split(".")[0] not in PLACES]
        asked = f"experiment={each['experiment']}"
        words = words if any("experiment" in word.split("=")[0] for word in words) else [asked, *words]
        calls.append(shlex.join(["lgap-bench", "run", *words]))
    return sorted(set(calls), key=lambda call: (len(call), call)) or [
        shlex.join(["lgap-bench", "run", *_parts(record)])
    ]


def _parts(record: Record) -> list[str]:
    """Words for a record that no experiment asked for: its parts, budget, n and seed."""
    s = record.summary()
    groups = ("dataset", "purifier", "classifier", "attack", "threat")
    words = [f"{group}={s[f'{group}_name']}" for group in groups if s.get(f"{group}_name")]
    return [*words, f"threat.eps={s['eps']}", f"n={s['n']}", f"seed={s['seed']}"]


def _entry(record: Record, config: str | None) -> Entry:
    s, run = record.summary(), record.run()
    verdict, reasons = record.verdict()
    said = []
    for name in ("natural", "robust"):
        if name in s:
            value = judged(s[name]["mean"], verdict) if name == "robust" else s[name]["mean"]
            said.append(f"{name} {shown(value)} ({s[name]['low']:.1f}-{s[name]['high']:.1f})")
    facts = [(key.replace("_", " "), _short(value)) for key, value in sorted(run.items()) if _plain(key, value)]
    note = ""
    if _live(record.identity()):
        note = "Measured from Python: the same call of evaluate(...) or lgap-bench eval repeats it."
    elif not record.requests():
        note = "No experiment asked for this cell: the command names its parts, other settings stand in its config."
    return Entry(
        record.folder.name, title(record), commands(record), note, ", ".join(said), verdict, reasons, facts,
        str(record.folder), config,
    )  # fmt: skip


def _live(identity: object) -> bool:
    if isinstance(identity, dict):
        return identity.get("_target_") == LIVE or any(_live(each) for each in identity.values())
    return False


def _plain(key: str, value: Any) -> bool:
    return isinstance(value, str | int | float) and not key.endswith("_sha256")


def _short(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
