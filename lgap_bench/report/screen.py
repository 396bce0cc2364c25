"""A cell's numbers as a person reads them on a screen, from its record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lgap_bench.record import Record


def one_screen(record: Record) -> str:
    """A cell's numbers as a person reads them."""
    s, run = record.summary(), record.run()
    lines = [
        f"{s['purifier_name']} + {_classifier(s)} on {s['dataset_name']}, {s['attack_name']} (view {s['view']}), "
        f"{s['norm']} {s['eps']}, n = {s['n']}, seed {s['seed']}"
    ]
    value, reasons = record.verdict()
    for title in ("natural", "robust"):
        if title in s:
            a = s[title]
            mark = {"upper bound": "≤", "invalid": "?"}.get(value, "") if title == "robust" else ""
            lines.append(
                f"  {title:8} {mark}{a['mean']:5.1f}  [{a['low']:.1f}, {a['high']:.1f}]   any of {s['score_draws']}: "
                f"{a['any_of_k']:.1f}   majority: {a['majority_of_k']:.1f}   undefended: {s[f'undefended_{title}']:.1f}"
            )
    if s.get("caption_label_clean") is not None:
        lines.append(
            f"  caption names the label: clean {s['caption_label_clean']:.1f}, attacked {s['caption_label_attacked']:.1f}"
        )
    if s.get("attacked_caption_target") is not None:
        lines.append(f"  attacked captions that say what the attack aimed at: {s['attacked_caption_target']:.1f}")
    if "as_published" in s:
        lines.append(f"  the library's own count (as_published): {s['as_published']:.1f}")
    finders = {key.removeprefix("found_by_"): value for key, value in s.items() if key.startswith("found_by_")}
    if len(finders) > 1:
        shares = ", ".join(f"{name} {value:.0f} %" for name, value in finders.items())
        lines.append(f"  the worst image was found by: {shares}")
    if "gradient_cosine" in s:
        lines.append(
            f"  this view's gradient beside the exact one (at most 4 images): cosine {s['gradient_cosine']:.3f}, signs agree {s['gradient_signs']:.1f} %"
        )
    lines.append(f"  verdict: {value}")
    lines += [f"    - {reason}" for reason in reasons]
    if s["failed"]:
        lines.append(f"  partial: the attack failed on {s['failed']} samples, which count neither way")
    lines.append(f"  {_took(run)}   record and pictures: {record.folder}")
    return "\n".join(lines)


def _took(run: Mapping[str, Any]) -> str:
    """`57.3 s`; on a machine that others use too also what the processor did, and what was forecast of it."""
    clock, worked, told = run["seconds"], run.get("processor_seconds"), (run.get("forecast") or {}).get("seconds")
    more = (
        [f"{worked:.1f} s of the processor"] if worked and run.get("device") == "cpu" and worked < 0.8 * clock else []
    )
    more += [f"{told:.1f} s were forecast"] if told else []
    return f"{clock:.1f} s" + (f" ({', '.join(more)})" if more else "")


def not_whole(missing: Mapping[int, Sequence[int]], shard: int, shards: int, chunks: int) -> str:
    """What a person reads of a shard whose cell is not whole yet: which shards are missing, and how much of them.

    `missing` is the record's, by shard; `chunks` how many the cell has.
    """
    own = len(range(shard, chunks, shards))
    others = [f"{each} ({len(left)} of {len(range(each, chunks, shards))})" for each, left in missing.items()]
    waits = f"waits for shard{'s' if len(others) > 1 else ''} {', '.join(others)}" if others else "is being made whole"
    return f"shard {shard} of {shards}: {own - len(missing.get(shard, ()))} of {own} chunks done; the cell {waits}"


def _classifier(summary: Mapping[str, Any]) -> str:
    """The classifier's name and what was done to it."""
    stages = [f"{stage} {summary[f'{stage}_name']}" for stage in summary["stages"]]
    return ", ".join([summary["classifier_name"], *stages])


def rescored(record: Record, again: Record) -> str:
    """Where a cell's attacked images were written, and what they are worth in 8 bits."""
    folder = record.folder.parent.parent / "exports" / record.folder.name
    return f"attacked images: {folder}; rounded to 8 bits they score\n{one_screen(again)}"
