"""`lgap-bench verify`: somebody else's number, checked.

A number is checked by scoring the attacked images that its record kept, on draws of another seed. Whoever made the record
cannot have chosen images, or draws, by what these say.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lgap_bench.cell.compose import composed
from lgap_bench.cell.config import Cell
from lgap_bench.cell.identity import identity, record_id
from lgap_bench.cell.instantiate import check_signatures, instantiate
from lgap_bench.logger.base import Loggers
from lgap_bench.logger.configured import configured
from lgap_bench.measure import measure
from lgap_bench.record import Record
from lgap_bench.runtime import files
from lgap_bench.runtime.device import configure, find_device
from lgap_bench.verify.again import NUMBERS, SEEDS, again, differences, require_same, require_same_training
from lgap_bench.verify.archive import opened, require_images
from lgap_bench.verify.judge import Compared, compared, tolerated
from lgap_bench.verify.judge import require_images as held_against

USAGE = """lgap-bench verify <record folder or archive> [seed=N] [device=cuda] [outputs=DIR] [data=DIR] [checkpoints=DIR]

Scores the attacked images that a record kept, on draws of another seed, and says whether both numbers agree. Exit code 1 where
they do not. Paths of the record that lead elsewhere here are words too: classifier.weights=PATH. trust=PACKAGE allows parts
that are not this release's. docs/verify.md
"""


@dataclass(frozen=True)
class Verified:
    """What came of it.

    Attributes:
        title: the cell, in one line.
        claim: what is not as recorded of the images themselves, in words; then nothing was scored.
        lines: the accuracies.
        draws: fresh draws per image; 1 of a defense without randomness.
        notes: what is not as where the record was made.
    """

    record: str
    title: str
    seed: int
    claim: str | None
    lines: Sequence[Compared]
    draws: int
    notes: Sequence[str]

    @property
    def agrees(self) -> bool:
        """Whether the images are as recorded, and each accuracy agrees."""
        return self.claim is None and all(line.agrees for line in self.lines)


def main() -> None:
    """Verify what the command line names and print it; exit code 1 where it does not agree."""
    words = sys.argv[1:]
    if not words or words[0] in ("--help", "-h"):
        print(USAGE, end="")
        return
    found = verify(Path(words[0]), _words(words[1:]))
    print(told(found))
    if not found.agrees:
        sys.exit(1)


def verify(where: Path, words: Mapping[str, Any]) -> Verified:
    """Score a record's kept images again. Raises ValueError in one line for a record that cannot be checked here.

    Args:
        where: the folder or archive.
        words: `seed` (none: one nobody could know before), `trust`, and what `again` takes.
    """
    own = dict(words)
    seed, trusted = int(own.pop("seed", secrets.randbelow(SEEDS))), tuple(str(own.pop("trust", "")).split(","))
    with opened(where) as record:
        require_images(record)
        cell = again(record, own, seed, tuple(filter(None, trusted)))
        device = find_device(cell.device)
        require_same(record, cell, device)
        require_same_training(record, cell, device, made=False)
        configure(cell.tf32, cell.threads, device)
        check_signatures(cell)
        claim = held_against(record, instantiate(cell.dataset), instantiate(cell.threat))
        lines: Sequence[Compared] = ()
        if claim is None:
            scored = _scored(cell, record)
            lines = compared(record, scored)
        notes = differences(record, cell, device)
        summary = record.summary()
        return Verified(record.folder.name, _title(summary), seed, claim, lines, summary["score_draws"], notes)


def _scored(cell: Cell, record: Record) -> Record:
    """The record of the new scores, below <outputs>/verified; a call that was killed goes on where it stopped."""
    device = find_device(cell.device)
    identified = identity(cell, device.kind)
    made = Record(cell.outputs / "verified" / record_id(identified))
    if not made.complete:
        files.writable(made.folder.parent)
        loggers: Loggers = configured(composed([]).logger)
        try:
            measure(cell, made, identified, device, loggers, alone=True)
        finally:
            loggers.closed()
    require_same_training(record, cell, device, made=True)
    made.check()
    return made


def told(found: Verified) -> str:
    """As a person reads it."""
    lines = [f"record {found.record}: {found.title}"]
    if found.claim is not None:
        lines.append(f"  images    {found.claim}")
    else:
        lines.append(
            f"  images    {found.lines[0].images}, all inside the ball and as far from the clean ones as recorded"
        )
    for line in found.lines:
        lines.append(
            f"  {line.title:9} recorded {line.recorded:5.1f}   here {line.again:5.1f}   difference {line.difference:+.1f} "
            f"[{line.low:.1f}, {line.high:.1f}]   {'agree' if line.agrees else 'DISAGREE'}"
        )
    lines.append(f"  {_verdict(found)}")
    lines += [f"    - {note}" for note in [*_changed(found), *found.notes]]
    lines.append(f"  the same draws again: seed={found.seed}")
    return "\n".join(lines)


def _verdict(found: Verified) -> str:
    if found.claim is not None:
        return "DISAGREE: the images are not what the record says of them; nothing was scored"
    draws = f"{found.draws} new draws per image" if found.draws > 1 else "the defense draws nothing"
    if found.agrees:
        return f"agree: the 95 % interval of each difference holds 0 ({draws})"
    turned = max(line.turned for line in found.lines)
    if turned > tolerated(found.lines[0].images):
        return f"DISAGREE: {turned} answers are not the recorded ones and far from turning, which no rounding explains ({draws})"
    return f"DISAGREE: a 95 % interval of a difference does not hold 0 ({draws}); of honest records about one in twenty does that, try another seed"


def _changed(found: Verified) -> list[str]:
    """A defense that draws nothing answers the same: where it does not, rounding or other code did it."""
    changed = sum(line.changed for line in found.lines)
    if found.draws > 1 or not changed:
        return []
    return [f"{changed} answers are not those of the record: other hardware or library versions may turn close ones"]


def _title(summary: Mapping[str, Any]) -> str:
    names = (summary[f"{key}_name"] for key in ("purifier", "classifier", "dataset", "attack"))
    purifier, classifier, dataset, attack = names
    return f"{purifier} + {classifier} on {dataset}, {attack} (view {summary['view']}), {summary['norm']} {summary['eps']}, n = {summary['n']}, seed {summary['seed']}"


def _words(words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words, values as YAML reads them."""
    found: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        if not value or not (key in (*NUMBERS, "trust") or "." in key):
            raise ValueError(
                f"{word} is not a key of verify: use {', '.join(NUMBERS)}, trust, or a path of the record as classifier.weights=PATH"
            )
        found[key] = yaml.safe_load(value) if key in ("seed", "threads", "max_rows") else value
    seed = found.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEEDS:
        raise ValueError(f"seed={seed} is not in int [0, {SEEDS - 1}]: give a whole number, or none")
    return found
