"""`lgap-bench sync`: W&B runs of finished records, and of cells that failed, which W&B does not have yet."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from lgap_bench.logger import wandb_spool as spool_files
from lgap_bench.logger.wandb_run import Run, of_record, of_table
from lgap_bench.logger.wandb_settings import Settings, settings
from lgap_bench.record import Record, records
from lgap_bench.runtime import files, libraries
from lgap_bench.runtime.words import Parser

LONGEST_BUILD = 120  # seconds
Told = dict[str, dict[str, Any]]


class Broken(Exception):
    """wandb itself does not work any more in this process."""


def main() -> None:
    """Build and send what is missing, a line for each and a total; exit code 1 if something could not be sent."""
    arguments = _arguments()
    outputs: Path = arguments.outputs
    asked = {key: value for key, value in vars(arguments).items() if key in ("project", "entity", "group") and value}
    variables = dict(os.environ)
    if variables.get("WANDB_MODE", "").lower() == "disabled" or settings({}, variables).mode == "disabled":
        raise ValueError("W&B is switched off by WANDB_MODE or WANDB_DISABLED: unset it to send, nothing was done")
    libraries.require("wandb", "lgap-bench sync")
    mode = "offline" if arguments.offline else "online"
    held = settings({"mode": mode, "paths": arguments.paths, **asked}, variables)
    told = _told(outputs)
    todo = _todo(outputs, arguments.ids, told)
    if not todo:
        print(f"no finished record and no failed cell in {outputs / 'records'}: nothing to send")
        return
    os.environ.update(spool_files.environment(outputs))
    spool_files.work(outputs).mkdir(parents=True, exist_ok=True)
    counts = {"sent": 0, "built": 0, "already sent": 0, "not sent": 0}
    gone = ""  # why nothing can be sent any more
    for name in todo:
        own = _settings(held, told.get(name), asked)
        word, text, over = ("not sent", gone, True) if gone else _one(outputs, name, told, own, arguments.force)
        gone = text if over else ""
        counts[word] += 1
        print(f"{name}: {word}{f': {text}' if text else ''}", flush=True)
    print(", ".join(f"{count} {word}" for word, count in counts.items() if count))
    if counts["not sent"]:
        sys.exit(1)


def _one(outputs: Path, name: str, told: Told, own: Settings, force: bool) -> tuple[str, str, bool]:
    """Build and send one run: what became of it, an address or a reason, and whether the others need not be tried."""
    from lgap_bench.logger import wandb_write as write

    try:
        record, run, content = _run(outputs, name, told, own)
        if not force and own.mode == "online" and spool_files.was_sent(outputs, name, content):
            _forget(outputs, name, record)
            return "already sent", "", False
        with write.alone(outputs, name, own.limit) as mine:
            if not mine:
                return "not sent", "another process is at it", False
            with _limited():
                made = write.build(run, own, outputs)
            if own.mode == "offline":
                return "built", str(made), False
            page = write.send(made, own.limit)
            write.remove(outputs, name)
            spool_files.mark_sent(outputs, name, content, own.project)
            _forget(outputs, name, record)
            return "sent", page or "", False
    except write.NoServer as error:
        return "not sent", str(error), True
    except (write.NotSent, ValueError, OSError) as error:
        return "not sent", files.one_line(error), isinstance(error, ConnectionError)
    except Broken as error:
        return "not sent", str(error), True


def _run(outputs: Path, name: str, told: Told, own: Settings) -> tuple[Record | None, Run, dict[str, Any]]:
    """The run to send, its record where it has one, and what its content is known by."""
    entry = told.get(name, {})
    if entry.get("kind") == "table":
        return None, of_table(entry, own), {"table": files.content_id({"rows": entry["rows"]})}
    record = Record(outputs / "records" / name)
    if record.complete:
        return record, of_record(record, own, {}), spool_files.content_of(record)
    return record, of_record(record, own, entry), {"failed": str(entry.get("error")), "at": entry.get("began")}


def _todo(outputs: Path, ids: list[str], told: Told) -> list[str]:
    """The records to look at: those that are asked for, or all, and after them the failed cells and tables."""
    found = {record.folder.name for record in records(outputs)}
    for name in ids:
        if name not in found and name not in told:
            raise ValueError(f"record {name} is not finished in {outputs / 'records'}: give the name of a folder there")
    return ids or [*sorted(found), *(name for name in told if name not in found)]


def _told(outputs: Path) -> Told:
    """What evaluating processes told and their children could not send; cells that still run are not among it."""
    found: Told = {}
    for spool in sorted(spool_files.spools(outputs).glob("*")):
        for _, entry in spool_files.entries(spool):
            if entry.get("state") in ("finished", "failed") and entry.get("began", 0) >= found.get(entry["id"], {}).get(
                "began", 0
            ):
                found[entry["id"]] = entry
    return found


def _forget(outputs: Path, name: str, record: Record | None) -> None:
    """Remove what was told of a run that is sent; a spool folder without a cell is nobody's."""
    for spool in spool_files.spools(outputs).glob("*"):
        for file, entry in list(spool_files.entries(spool)):
            if entry["id"] == name and (
                entry["state"] in ("finished", "failed") or (record is not None and record.complete)
            ):
                file.unlink(missing_ok=True)
        with suppress(OSError):
            if not list(spool.glob("*.json")):
                (spool / "said.txt").unlink(missing_ok=True)
                spool.rmdir()


def _settings(held: Settings, entry: Mapping[str, Any] | None, asked: Mapping[str, Any]) -> Settings:
    """The settings that the cell was run with, where its process left them; the command's own words win."""
    if entry is None:
        return held
    now = {"mode": held.mode, "limit": held.limit, "paths": entry["settings"]["paths"] or held.paths}
    return Settings.read({**entry["settings"], **asked, **now})


@contextmanager
def _limited() -> Iterator[None]:
    """Raise `Broken` when wandb hangs, or when its helper process is gone."""

    def late(*_: object) -> NoReturn:
        raise Broken(f"wandb did not answer within {LONGEST_BUILD} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST_BUILD)
    try:
        yield
    except (OSError, ValueError, Broken):
        raise
    except Exception as error:
        raise Broken(f"wandb failed ({type(error).__name__}: {files.one_line(error)})") from error
    finally:
        signal.alarm(0)


def _arguments() -> argparse.Namespace:
    parser = Parser(
        "sync", "Send finished records to Weights & Biases that it does not have yet; WANDB_* variables are obeyed."
    )
    parser.add_argument("ids", nargs="*", metavar="record", help="ids of records; all where none is given")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("--project", help="lgap-bench, or what the cell was run with")
    parser.add_argument("--entity", help="user or team; the account's own where none is given")
    parser.add_argument("--group", help="of every run; the folder of its experiment where none is given")
    parser.add_argument("--offline", action="store_true", help="only build: files below <outputs>/wandb")
    parser.add_argument("--paths", action="store_true", help="also send paths, as logger.wandb.paths=true does")
    parser.add_argument("--force", action="store_true", help="also what was sent already")
    return parser.given()
