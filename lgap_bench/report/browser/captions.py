"""Captions under attack: how often they still name the label, and what they said before and after."""

from __future__ import annotations

from collections.abc import Sequence

from lgap_bench.record import Record
from lgap_bench.report.page import Page, Table
from lgap_bench.report.pages.captions import COLUMNS, fidelity
from lgap_bench.report.rows import grouped

EACH, ALL = 3, 60  # examples of a record, and of a page
SAID = ("attack", "image", "label", "clean_caption", "attacked_caption", "names_the_label")


def page(found: Sequence[Record]) -> Page | None:
    """Both tables; None where no record holds captions."""
    captioned = [record for record in found if "attacked_caption" in record.samples()]
    if not captioned:
        return None
    rows = fidelity(grouped(captioned))
    columns = [column for column in COLUMNS if any(row.get(column) is not None for row in rows)]
    shown = examples(captioned)
    tables = [Table(columns, rows, "How often captions name the label, clean and attacked, in percent")]
    tables += [Table(SAID, shown[:ALL], "What attacks made of captions: the first that changed")] if shown else []
    left = len(shown) - ALL
    notes = [f"{left} more changed captions of other records are not shown"] if left > 0 else []
    return Page("captions", "Captions under attack", tables=tables, notes=notes)


def examples(found: Sequence[Record]) -> list[dict[str, object]]:
    """Per record the first images whose caption the attack changed."""
    rows: list[dict[str, object]] = []
    for record in found:
        samples, classes, name = record.samples(), record.classes(), record.summary()["attack_name"]
        pairs = enumerate(zip(samples["clean_caption"], samples["attacked_caption"], strict=True))
        for place, (before, after) in [each for each in pairs if each[1][0] != each[1][1]][:EACH]:
            rows.append(
                {
                    "attack": name,
                    "image": str(samples["id"][place]),
                    "label": classes[samples["label"][place]],
                    "clean_caption": before,
                    "attacked_caption": after or "(empty)",
                    "names_the_label": "yes" if samples["attacked_caption_label"][place] else "no",
                    "records": record.folder.name,
                }
            )
    return rows
