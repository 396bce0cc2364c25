"""A lower number on the same defense and images: whatever found it, the higher one is no more than an upper bound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.cell.identity import targets
from lgap_bench.metric.interval import paired_interval
from lgap_bench.record import Record, records
from lgap_bench.runtime.code import changed
from lgap_bench.task.single_label import SINGLE_LABEL

# Of an identity: what may differ between attacks on one defense and its images.
ATTACKERS = ("attack", "view", "seed", "unrelated", "order", "code")


def compare(record: Record, outputs: Path) -> None:
    """Hold a finished record against all others of its defense and images, and note in each what found less than it.

    A deterministic defense is told on by one image that is right here and wrong there; a randomized one by a difference
    whose interval lies above zero. Records that cannot be read, or hold other images, say nothing.
    """
    own = _defense(record.identity())
    for other in records(outputs):
        if other.folder == record.folder or _defense(other.identity()) != own:
            continue
        try:
            rates = [_rates(each) for each in (record, other)]
        except (ValueError, OSError, KeyError):  # a damaged record is said by whoever asks for it
            continue
        if rates[0].keys() == rates[1].keys():
            _note(record, other, rates[0], rates[1])
            _note(other, record, rates[1], rates[0])


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
    """What has to agree: all but the attacker; and of the code all but what is behind the attacker alone."""
    kept = {key: value for key, value in identity.items() if key not in ATTACKERS}
    if code := identity.get("code"):
        own, attackers = (changed(targets(parts)) for parts in (kept, [identity.get("attack"), identity.get("view")]))
        kept["code"] = {name: digest for name, digest in code.items() if name in own or name not in attackers}
    return {**kept, "code": kept.get("code", {})}


def _rates(record: Record) -> dict[int, float]:
    """Image -> share of right draws under attack, NaN where the attack failed."""
    samples = record.samples()
    right = SINGLE_LABEL.correct(samples, "attacked").mean(1)
    failed = np.asarray(samples["failed"])
    return dict(zip(samples["id"], np.where(failed, np.nan, right).tolist(), strict=True))
