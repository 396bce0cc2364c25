"""A cell beside the records of others: one that other code made, and a lower number on the same defense and images.

Whatever found the lower number, the higher one is no more than an upper bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.cell.identity import targets
from lgap_bench.metric.interval import paired_interval
from lgap_bench.record import Record, records
from lgap_bench.runtime import files
from lgap_bench.task.single_label import SINGLE_LABEL

# Of an identity: what may differ between attacks on one defense and its images.
ATTACKERS = ("attack", "view", "seed", "unrelated", "order")
ATTACKING = (
    "lgap_bench.attack."  # modules whose code is the attacker's; of the user's own, those that are its `_target_`
)


def compare(record: Record, outputs: Path) -> None:
    """Hold a finished record against all others of its defense and images, and note in each what found less than it.

    A deterministic defense is told on by one image that is right here and wrong there; a randomized one by a difference
    whose interval lies above zero. Records that cannot be read, or hold other images, say nothing.
    """
    own, rates = _defense(record.identity()), _rates(record)
    for other in records(outputs):
        if other.folder == record.folder:
            continue
        try:
            if _defense(other.identity()) != own:  # the cheap question first: a sweep has hundreds of records
                continue
            other.summary()
            if (found := _rates(other)).keys() == rates.keys():
                _note(record, other, rates, found)
                _note(other, record, found, rates)
        except (ValueError, OSError, KeyError, TypeError):  # a damaged record is said by whoever asks for it
            continue


def made_by_other_code(outputs: Path, identity: Mapping[str, Any]) -> str | None:
    """The id of the latest record, finished or not, that differs from an identity in its `code` alone; None if none does."""

    def without_code(held: Mapping[str, Any]) -> str:
        return files.content_id({key: value for key, value in held.items() if key != "code"})

    own, found = files.content_id(identity), without_code(identity)
    for file in sorted((outputs / "records").glob("*/identity.json"), key=lambda file: -file.stat().st_mtime):
        try:
            held = Record(file.parent).identity()
        except ValueError:  # damaged: said by whoever asks for that record
            continue
        if without_code(held) == found and files.content_id(held) != own:
            return file.parent.name
    return None


def _note(higher: Record, lower: Record, own: Mapping[int, float], found: Mapping[int, float]) -> None:
    """Note in `higher` that `lower` found less, if it did."""
    ids = [i for i in own if not np.isnan(own[i]) and not np.isnan(found[i])]
    if not ids:
        return
    points: NDArray[Any] = 100 * np.asarray([[own[i] - found[i] for i in ids]])
    summary = lower.summary()
    certain = summary["score_draws"] == 1 and bool((points > 0).any()) and points.mean() > 0
    if certain or paired_interval(points)[1] > 0:
        robust = 100 * float(np.mean([found[i] for i in ids]))
        higher.note_lower(summary["attack_name"], summary["view"], robust, lower.folder.name)


def _defense(identity: Mapping[str, Any]) -> dict[str, Any]:
    """All that identifies the defense and its images; a part that an attacker wrote is none of it, other edited code is."""
    kept = {key: value for key, value in identity.items() if key not in ATTACKERS}
    attackers = [f"{target}." for key in ("attack", "view") for target in targets(identity.get(key))]
    code = {
        module: digest
        for module, digest in identity.get("code", {}).items()
        if not module.startswith(ATTACKING) and not any(target.startswith(f"{module}.") for target in attackers)
    }
    return {**kept, "code": code}


def _rates(record: Record) -> dict[int, float]:
    """Image -> share of right draws under attack, NaN where the attack failed."""
    samples = record.samples()
    right = SINGLE_LABEL.correct(samples, "attacked").mean(1)
    failed = np.asarray(samples["failed"])
    return dict(zip(samples["id"], np.where(failed, np.nan, right).tolist(), strict=True))
