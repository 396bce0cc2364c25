"""Records of an outputs folder -> docs/records/: every measured item of the papers, the demo and the forecasts, as pages show them."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from lgap_bench import demo
from lgap_bench.record import Record
from lgap_bench.report.command import item
from lgap_bench.report.html import records_of
from lgap_bench.report.page import Page, Unmeasured
from lgap_bench.report.pages import all as all_records
from lgap_bench.report.pages import captions, forecasts, paper
from lgap_bench.report.rows import Merge, Merger
from scripts.docs import figures, kept

DEMO, FORECASTS, CAPTIONS = "demo", "forecasts", "captions"  # what stands in docs/ and is no item of a paper


def gather(
    outputs: Path,
    names: Sequence[str] = (),
    commit: str = "",
    folder: Path = kept.FOLDER,
    shown: Collection[str] | None = None,
) -> list[Path]:
    """Keep the pages of all items, or of those named, that were measured; returns their files.

    `shown`: names of the pages that are kept, the others stand nowhere in docs/; None for all. Raises ValueError where there is no record, a name is not known, or a record is damaged.
    """
    found, shared = all_records.finished(outputs), Merger()
    commit = commit or _checked_out()
    written = []
    beside = {DEMO: _of_demo, FORECASTS: _of_forecasts, CAPTIONS: _of_captions}
    for name in names or [DEMO, *paper.known()]:  # the others where they are named: they are of all records there
        pages, own = beside[name](found) if name in beside else _of_paper(name, outputs, found, shared)
        for page in pages:
            if shown is not None and page.name not in shown:
                continue
            held = _behind(page, own)
            written.append(
                kept.write(name, page, _made(name, held, commit), [each.folder.name for each in held], folder)
            )
            if folder == kept.FOLDER:  # its pictures are those of docs/
                figures.draw_gathered(page, kept.read(page.name, folder))
    if not written:
        raise ValueError(
            f"outputs={outputs}: no item that docs/ shows was measured: lgap-bench tables lgap dataset=digits"
        )
    return written


def _of_paper(name: str, outputs: Path, found: Sequence[Record], shared: Merge) -> tuple[list[Page], list[Record]]:
    """The measured pages of an item, and the records of its experiments."""
    own = records_of(paper.load(name), found)
    with suppress(Unmeasured):
        return [page for page in item(name, outputs, None, shared) if page.measured], own
    return [], own  # nothing of it is there: it is left as it was gathered before


def _of_demo(found: Sequence[Record]) -> tuple[list[Page], list[Record]]:
    """The demo's page where all of its cells were measured."""
    own = demo.kept(found)
    return [demo.page(own)] if len(own) == len(demo.ROWS) else [], list(own.values())


def _of_forecasts(found: Sequence[Record]) -> tuple[list[Page], list[Record]]:
    """What was forecast of the records beside what they took."""
    page = forecasts.page(found)
    return [] if page is None else [page], [record for record in found if record.run().get("forecast")]


def _of_captions(found: Sequence[Record]) -> tuple[list[Page], list[Record]]:
    """What the attacks did to the captions."""
    return [captions.page(found)], list(found)


def _behind(page: Page, own: Sequence[Record]) -> list[Record]:
    """The records that stand in the page's rows; where none does, as for a grid of pictures, all of its item."""
    rows = [row for table in page.tables for row in table.rows]
    behind = {each for row in rows for each in str(row.get("records") or "").split()}
    return [record for record in own if record.folder.name in behind] or list(own)


def _made(name: str, held: Sequence[Record], commit: str) -> kept.Made:
    date = max((str(record.run().get("finished", ""))[:10] for record in held), default="")
    return kept.Made(date, commit, _command(name, held))


def _command(name: str, held: Sequence[Record]) -> str:
    """What measures these records."""
    if name == DEMO:
        return "make demo"
    datasets = sorted({record.summary()["dataset_name"] for record in held})
    scale = [f"dataset={datasets[0]}"] if len(datasets) == 1 else []
    if name == FORECASTS:
        papers = sorted({each["experiment"].split("/")[0] for record in held for each in record.requests()})
        words = " ".join([*papers, *scale])
        return f"lgap-bench plan {words} && lgap-bench tables {words}"
    if name == CAPTIONS:
        summaries = [record.summary() for record in held]
        names = {key: sorted({str(each[f"{key}_name"]) for each in summaries}) for key in ("captioner", "attack")}
        varied = " ".join(f"{key}={','.join(each)}" for key, each in names.items())
        return f"lgap-bench run -m n={summaries[0]['n']} {varied}"
    slow = any("/slow/" in each["experiment"] for record in held for each in record.requests())
    measured = name.split("/")[0] if "claims" in paper.load(name) else name  # claims are of all of a paper's items
    return " ".join(["lgap-bench tables", measured, *scale, *_asked(held), *(["slow=true"] if slow else [])])


def _asked(held: Sequence[Record]) -> list[str]:
    """The words that all records were asked for with, beside those of their experiments: `n=200`, `seed=0,1,2`."""
    asked = [{word for each in record.requests() for word in each["overrides"]} for record in held]
    shared = set.intersection(*asked) if asked else set()
    seeds: dict[str, set[int]] = defaultdict(set)  # of each cell, told by all else that it is
    for record in held:
        seeds[json.dumps({**record.identity(), "seed": None}, sort_keys=True)].add(record.identity()["seed"])
    found = {tuple(sorted(each)) for each in seeds.values()}
    alike = sorted(found.pop()) if len(found) == 1 else [0]
    return [
        *sorted(word for word in shared if word.startswith("n=")),
        *([f"seed={','.join(map(str, alike))}"] if alike != [0] else []),
    ]


def _checked_out() -> str:
    """The commit of this checkout. Raises ValueError where there is none."""
    call = ["git", "rev-parse", "--short=7", "HEAD"]
    done = subprocess.run(call, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError("this is no checkout: name the commit that measured the records, commit=7cf6d3d")
    return done.stdout.strip()
