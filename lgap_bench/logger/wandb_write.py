"""A run as files that `wandb sync` sends, and the sending, under a time limit. The only module that imports wandb.

For the child and for `lgap-bench sync`: the evaluating process never comes here.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lgap_bench.logger import wandb_file
from lgap_bench.logger.wandb_run import Run
from lgap_bench.logger.wandb_settings import Settings
from lgap_bench.logger.wandb_spool import OURS, work

# Nothing of the machine: no console, statistics, code, git remote, host name, arguments.
QUIET = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "x_disable_meta": True,
    "host": "",  # W&B would ask the machine for its name
    "x_disable_stats": True,
    "x_save_requirements": False,
}
KNOCK = 5.0  # seconds that a server has to answer at all
STAGED = "artifacts"  # in a run's folder: the files of its artifacts
TIMES = "%Y%m%d_%H%M%S"


class NotSent(Exception):
    """Why W&B does not have a run, in words."""


class NoServer(NotSent):
    """The server does not answer, so that no other run can be sent either."""


def folder(outputs: Path) -> Path:
    """Where the runs lie: <outputs>/wandb, or below the user's own WANDB_DIR."""
    own = os.environ.get("WANDB_DIR")
    return Path(own).resolve() / "wandb" if own else work(outputs)


@contextmanager
def alone(outputs: Path, name: str, wait: float) -> Iterator[bool]:
    """Whether nobody else is at this run; shards and repeated calls must not send an older state over a newer one."""
    from filelock import FileLock, Timeout

    place = work(outputs) / "locks"
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f"{name}.lock")
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):  # a file system without locks: better twice than not at all
        pass
    try:
        yield True
    finally:
        lock.release()


def build(run: Run, settings: Settings, outputs: Path) -> Path:
    """Write a run, complete, and put it in the place of an earlier one of its id; returns its folder.

    Raises OSError where the folder cannot be written, and whatever wandb raises.
    """
    building = work(outputs) / "building" / run.id
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    if Path(os.environ.get("WANDB_DATA_DIR", building)).is_relative_to(work(outputs)):  # not the user's own
        os.environ["WANDB_DATA_DIR"] = str(building / "data")
    made = _write(run, settings, building)
    _gather(made)
    place = folder(outputs)
    place.mkdir(parents=True, exist_ok=True)
    remove(outputs, run.id)
    final = place / f"offline-run-{time.strftime(TIMES)}-{run.id}"
    shutil.move(made, final)
    shutil.rmtree(building, ignore_errors=True)
    return final


def remove(outputs: Path, name: str) -> None:
    """Remove what earlier builds of a run have left."""
    for held in folder(outputs).glob(f"offline-run-*-{name}"):
        shutil.rmtree(held, ignore_errors=True)


def _gather(made: Path) -> None:
    """Take the files of a run's artifacts into its folder, and name them from there.

    wandb copies them to another folder, whose absolute path it writes into the run and sends. The run is then found whole
    wherever its folder lies, but `wandb sync` has to be called in it.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made by protobuf when imported

    (file,) = made.glob("*.wandb")
    staged, records = made / STAGED, []
    staged.mkdir()
    for record in wandb_file.read(file):
        held = Record.FromString(record)
        if held.WhichOneof("record_type") == "artifact":
            for content in held.artifact.manifest.contents:
                name = f"{len(list(staged.iterdir()))}{Path(content.path).suffix}"
                shutil.move(content.local_path, staged / name)
                content.local_path = f"{STAGED}/{name}"
            record = held.SerializeToString()
        records.append(record)
    wandb_file.write(file, file.read_bytes()[: wandb_file.HEADER], records)


def _write(run: Run, settings: Settings, building: Path) -> Path:
    """One offline run in `building`; its folder."""
    import wandb

    quiet: dict[str, Any] = {key: value for key, value in QUIET.items() if key in wandb.Settings.model_fields}
    held = wandb.init(
        mode="offline",
        dir=str(building),
        id=run.id,
        project=settings.project,
        entity=settings.entity,
        group=run.group,
        job_type=run.job_type,
        name=run.name,
        tags=run.tags,
        config=run.config,
        settings=wandb.Settings(**quiet),
    )
    made = Path(held.settings.sync_dir)
    try:
        if not made.is_relative_to(building):  # wandb says nothing of a folder that it cannot write: it takes another
            raise OSError(f"{building} cannot be written")
        _fill(held, run)
    except BaseException:
        with suppress(Exception):  # else the next run of this process would go on with this one
            held.finish(exit_code=1)
            wandb.teardown()
        shutil.rmtree(made, ignore_errors=True)
        raise
    held.finish(exit_code=int(run.failed))
    wandb.teardown()  # only then the file is whole
    return made


def _fill(held: Any, run: Run) -> None:
    """Log all of a run."""
    import wandb

    held.define_metric("chunk", summary="none")
    held.define_metric("so_far/*", step_metric="chunk", summary="none")
    for row in run.rows:
        held.log({"chunk": row["chunk"], **{f"so_far/{key}": row[key] for key in row if key != "chunk"}})
    for name, table in run.tables.items():
        held.log({name: wandb.Table(columns=[*table.columns], data=table.rows, allow_mixed_types=True)})
    for name, picture in run.pictures.items():
        held.log({name: wandb.Image(str(picture))})
    if run.artifact:
        artifact = wandb.Artifact(f"record-{run.id}", "record")
        for file in run.artifact:
            artifact.add_file(str(file), str(file.relative_to(run.artifact[0].parent)))
        held.log_artifact(artifact)
    held.summary.update(run.summary)


def send(run: Path, limit: float) -> str | None:
    """Send a run's folder; the address of its page where W&B says it. Raises NotSent with the reason.

    `wandb sync` knows no limit on a dead server and exits with 0 on a refusal: so it is a process group of its own that is
    killed, and only the marker that it leaves beside the run counts.
    """
    began = time.monotonic()
    refused = knock()
    left_out = ("WANDB_MODE", "WANDB_SILENT", *OURS)
    variables = {key: value for key, value in os.environ.items() if key not in left_out}
    said = run / "sync.txt"
    with said.open("wb") as out:  # a file and no pipe: a grandchild that lives on would hold a pipe open
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "wandb", "sync", str(run)],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=run,
            env=variables,
            start_new_session=True,
        )
        try:
            process.wait(max(limit - (time.monotonic() - began), 1))
        except subprocess.TimeoutExpired:
            raise NotSent(f"it did not take the run within {limit:.0f} s") from None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = said.read_text(errors="replace")
    if not list(run.glob("*.wandb.synced")):
        raise NotSent(f"{refused}{_reason(text)}")
    pages = re.findall(r"https?://\S+/runs/[\w-]+", text)
    return pages[0] if pages else None


def knock() -> str:
    """Ask whether the server answers at all: waiting for one that does not would take all of the limit. Raises NoServer.

    Returns what it refuses with, or an empty text; a refusal need not mean the run, which comes with a key.
    """
    import requests
    import wandb

    url = str(wandb.setup().settings.base_url).rstrip("/")
    try:
        answer = requests.post(f"{url}/graphql", json={"query": "query { __typename }"}, timeout=KNOCK)
    except requests.exceptions.Timeout:
        raise NoServer(f"{url} does not answer within {KNOCK:.0f} s") from None
    except requests.exceptions.RequestException as error:
        raise NoServer(f"{url} cannot be reached ({type(error).__name__})") from None
    if answer.status_code >= 500:
        raise NoServer(f"{url} answers {answer.status_code}")
    return f"{url} answers {answer.status_code}: " if answer.status_code >= 400 else ""


def _reason(text: str) -> str:
    """The last line of what `wandb sync` printed that says why, or that it said nothing."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r", "\n")
    lines = [line.removeprefix("wandb: ").strip() for line in plain.splitlines()]
    telling = [
        line for line in lines if re.search(r"error|fail|denied|invalid|api key|4\d\d|not ", line, re.IGNORECASE)
    ]
    found = (telling or [line for line in lines if line] or ["`wandb sync` sent nothing and said nothing"])[-1]
    return " ".join(found.removeprefix("ERROR").removeprefix("Error:").split())[:300]
