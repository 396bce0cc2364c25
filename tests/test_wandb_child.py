"""Runs as the child makes and sends them: read back and held against the record; and a W&B that refuses, hangs or dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cells import called, lgap_bench, only_record, run
from wandb_server import Server

from lgap_bench.logger import wandb_spool as spool_files
from lgap_bench.logger.base import Logger, Loggers
from lgap_bench.logger.wandb import CHILDREN, Wandb, child, close, send_table
from lgap_bench.logger.wandb_file import read
from lgap_bench.logger.wandb_run import KILLED, of_record
from lgap_bench.logger.wandb_settings import Settings
from lgap_bench.record import Record

pytestmark = pytest.mark.slow  # wandb alone takes seconds to import
CELL = ["purifier=downsample", "attack=pgd", "attack.steps=1", "n=6", "chunk=2", "score_draws=2", "threads=1"]
KEY = "0123456789" * 4
PLAIN = Settings()
LONG = 240  # seconds that a child may take on a busy machine


class Timed(Logger):
    """Passes everything on and adds up the time that it takes: all that a logger can cost the process itself."""

    def __init__(self, logger: Logger) -> None:
        self.seconds = 0.0
        for event in ("started", "phase", "chunk", "finished", "failed"):
            setattr(self, event, self._passing(getattr(logger, event)))

    def _passing(self, told: Callable[..., None]) -> Callable[..., None]:
        def pass_on(*what: object) -> None:
            at = time.perf_counter()
            told(*what)
            self.seconds += time.perf_counter() - at

        return pass_on


@pytest.fixture(autouse=True)
def _nobody_elses_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A user's own W&B is never reached; children end with their test."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    yield
    for key in [*CHILDREN]:
        process = CHILDREN[key].process
        close(key, 0)
        if process is not None and process.poll() is None:
            process.kill()


def ended(outputs: Path) -> None:
    """Say to the child that this process ends, and wait until it has done what it can."""
    assert CHILDREN[os.getpid(), outputs.resolve()].close(LONG)
    close((os.getpid(), outputs.resolve()), 0)


def log(outputs: Path) -> str:
    return (outputs / "wandb" / "log.txt").read_text()


def runs(outputs: Path) -> dict[str, SimpleNamespace]:
    """Every offline run, read back."""
    found = {}
    for file in (outputs / "wandb").glob("offline-run-*/run-*.wandb"):
        held = _read(file)
        assert held.id not in found, "two runs of one id"
        found[held.id] = held
    return found


def _read(file: Path) -> SimpleNamespace:
    from wandb.proto.wandb_internal_pb2 import Record as Message

    held = SimpleNamespace(config={}, rows=[], summary={}, artifacts={}, media={}, exit=None, folder=file.parent)
    for content in read(file):
        message = Message.FromString(content)
        kind = message.WhichOneof("record_type")
        if kind == "run":
            held.id, held.group, held.job_type = message.run.run_id, message.run.run_group, message.run.job_type
            held.name, held.tags, held.project = message.run.display_name, [*message.run.tags], message.run.project
            held.config = {item.key: json.loads(item.value_json) for item in message.run.config.update}
        elif kind == "summary":
            held.summary |= {item.key: json.loads(item.value_json) for item in message.summary.update if item.key}
        elif kind == "history":
            row = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in message.history.item}
            held.rows += [row] if "chunk" in row else []
            held.media |= {key.split("/")[0]: row[key] for key in row if key.endswith("/path")}
        elif kind == "artifact":
            held.artifacts[message.artifact.name] = {c.path: c for c in message.artifact.manifest.contents}
        elif kind == "exit":
            held.exit = message.exit.exit_code
    return held


def table(held: SimpleNamespace, name: str) -> dict[str, Any]:
    return json.loads((held.folder / "files" / held.media[name]).read_text())


def assert_same(held: SimpleNamespace, record: Record, settings: Settings = PLAIN) -> None:
    """A run that was read back is what its record says."""
    meant = of_record(record, settings, {"config": record.config()})
    assert (held.id, held.name, held.group, held.job_type) == (meant.id, meant.name, meant.group or "", meant.job_type)
    assert (held.tags, held.exit) == ([*meant.tags], 0)
    assert {key: held.config[key] for key in meant.config} == meant.config
    assert set(held.config) - set(meant.config) <= {"_wandb"}
    assert [{key: row[key] for key in row if not key.startswith("_")} for row in held.rows] == [
        {"chunk": row["chunk"], **{f"so_far/{key}": row[key] for key in row if key != "chunk"}} for row in meant.rows
    ]
    assert {key: held.summary[key] for key in meant.summary} == meant.summary
    for name, expected in meant.tables.items():
        found = table(held, name)
        assert (found["columns"], found["data"]) == (expected.columns, expected.rows)
    assert (held.folder / "files" / held.media["grid"]).read_bytes() == (record.folder / "grid.png").read_bytes()
    sent = held.artifacts[f"record-{record.folder.name}"]
    assert sent.keys() == {file.name for file in meant.artifact}
    for file in meant.artifact:
        assert (held.folder / sent[file.name].local_path).read_bytes() == file.read_bytes()


def test_an_offline_run_is_what_the_record_says_and_names_neither_machine_nor_user_nor_folder(tmp_path):
    outputs = tmp_path / "outputs"
    words = [
        *CELL,
        f"outputs={outputs}",
        "logger=[console,wandb]",
        "logger.wandb.mode=offline",
        "logger.wandb.wait=240",
    ]
    with Server() as server:
        os.environ["WANDB_BASE_URL"] = server.url
        done = lgap_bench("run", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert server.asked == [], "offline is offline"
    record = Record(only_record(outputs))
    (held,) = runs(outputs).values()
    assert_same(held, record)
    content = b"".join(file.read_bytes() for file in held.folder.glob("*.wandb"))
    for word in (str(tmp_path), str(Path.cwd()), str(Path.home()), f'"{socket.gethostname()}"'):
        assert word.encode() not in content
    assert not [file for file in Path.home().rglob("*") if "wandb" in str(file.relative_to(Path.home()))]
    assert not (Path.home() / ".netrc").exists()
    assert list(spool_files.spools(outputs).glob("*")) == [], "nothing is left to do"


def test_a_child_that_keeps_dying_is_left_for_dead_and_the_cell_is_not(tmp_path, capsys):
    for seed in range(4):
        run([*CELL, f"seed={seed}", f"outputs={tmp_path}"], Loggers([Wandb(mode="offline")]))
        process = CHILDREN[os.getpid(), tmp_path].process
        process.kill()
        process.wait()
    assert "logger Wandb failed and is left out (OSError: its process ended 3 times" in capsys.readouterr().err
    assert called("sync", "--outputs", str(tmp_path), "--offline").stdout.endswith("4 built\n")


def test_two_cells_of_a_process_are_two_runs_of_one_child_and_a_failed_one_ends_with_its_sentence(tmp_path, capsys):
    children = set()
    for seed in (0, 1):
        run([*CELL, f"seed={seed}", f"outputs={tmp_path}"], Loggers([Wandb(mode="offline", tags=["mine"])]))
        children.add(CHILDREN[os.getpid(), tmp_path].process.pid)
    third = [*CELL, "seed=2", f"outputs={tmp_path}"]
    chunk = tmp_path / "records" / _id(third) / "chunks" / "00000.npz"
    chunk.parent.mkdir(parents=True)
    chunk.write_text("no archive")
    with pytest.raises(ValueError, match="is damaged"):
        run(third, Loggers([Wandb(mode="offline", tags=["mine"])]))
    children.add(CHILDREN[os.getpid(), tmp_path].process.pid)
    assert len(children) == 1
    ended(tmp_path)
    found = runs(tmp_path)
    failed = found.pop(_id(third))
    for held in found.values():
        assert_same(held, Record(tmp_path / "records" / held.id), Settings(tags=("mine",)))
    assert len(found) == 2
    assert (failed.exit, failed.summary["state"], failed.rows) == (1, "failed", [])
    assert failed.summary["error"].startswith("00000.npz is damaged"), "its path is cut"


def _id(words: list[str]) -> str:
    from cells import identified

    return identified(words)["cell"]


def test_a_killed_cell_ends_as_failed_and_once_resumed_is_one_run_with_every_row(tmp_path):
    words = [*CELL, "n=40", "attack.steps=5", f"outputs={tmp_path}", "logger=[console,wandb]"]
    words += ["logger.wandb.mode=offline", "logger.wandb.wait=240"]
    process = subprocess.Popen([sys.executable, "-m", "lgap_bench.cli", "run", *words], stderr=subprocess.DEVNULL)
    chunks = tmp_path / "records" / _id(words[:-3]) / "chunks"
    while len(list(chunks.glob("*.npz"))) < 3:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    _until(
        lambda: list((tmp_path / "wandb").glob("offline-run-*")) and not list(spool_files.spools(tmp_path).iterdir())
    )
    (killed,) = runs(tmp_path).values()
    assert (killed.exit, killed.summary["state"], killed.summary["error"]) == (1, "failed", KILLED)
    assert len(killed.rows) >= 3
    done = lgap_bench("run", *words)
    assert done.returncode == 0, done.stderr
    (held,) = runs(tmp_path).values()
    assert [row["chunk"] for row in held.rows] == list(range(20))
    assert_same(held, Record(only_record(tmp_path)))


def test_a_process_that_ends_in_order_before_its_cell_is_whole_leaves_the_run_running(tmp_path):
    """As of several processes that share a cell's chunks all but the last do."""
    logger, (cell, record) = Wandb(mode="offline"), _begun(tmp_path)
    logger.started(cell, record)
    ended(tmp_path)
    (held,) = runs(tmp_path).values()
    assert (held.exit, held.summary["state"]) == (0, "running")


def test_a_cell_that_runs_is_shown_anew_with_each_new_chunk_and_not_more_often(tmp_path, monkeypatch):
    from lgap_bench.logger import wandb_child
    from lgap_bench.runtime import files

    cell, record = _begun(tmp_path)
    for key, value in spool_files.environment(tmp_path).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(wandb_child, "EVERY", 0.0)
    spool = spool_files.spools(tmp_path) / "one"
    child = wandb_child.Child(tmp_path, spool)
    monkeypatch.setattr(child, "listen", lambda _: None)  # there is no parent
    told = {"kind": "cell", "id": record.folder.name, "state": "running", "config": cell.plain()}
    files.write_json(spool / "x.json", {**told, "settings": Settings(mode="offline").plain()})
    chunk = {"label": np.array([1, 2]), "failed": np.array([False, False]), "seconds": np.asarray(1.0)}
    chunk |= {"clean_prediction": np.array([[1, 2]]), "attacked_prediction": np.array([[1, 0]])}
    for count in (1, 2):
        files.write_npz(record.folder / "chunks" / f"{count:05d}.npz", chunk)
        assert child.round(), "it still runs"
        (held,) = runs(tmp_path).values()
        assert (held.summary["state"], len(held.rows), held.rows[-1]["so_far/robust"]) == ("running", count, 50.0)
        child.round()
        (again,) = runs(tmp_path).values()
        assert again.folder == held.folder, "nothing was new"
    assert log(tmp_path).count("built, running") == 2


def _begun(outputs: Path) -> tuple[Any, Record]:
    from lgap_bench.cell.compose import resolved

    words = [*CELL, f"outputs={outputs}"]
    return resolved(words), Record(outputs / "records" / _id(words))


def _until(done: Callable[[], object], pause: float = 0.2) -> None:
    end = time.monotonic() + LONG
    while not done():
        assert time.monotonic() < end
        time.sleep(pause)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The samples of the cell without W&B."""
    return (run([*CELL, f"outputs={tmp_path_factory.mktemp('plain')}"]).folder / "samples.parquet").read_bytes()


@pytest.mark.parametrize(
    "kind, limit, reason",
    [
        ("refused", 2, "cannot be reached"),
        ("hang", 2, "does not answer within 5 s"),
        (500, 2, "answers 500"),
        (401, 30, "answers 401: "),
        (403, 30, "answers 403: "),
        (404, 30, "answers 404: "),
        ("dies", 10, "not sent"),
    ],
)
def test_a_server_that_does_not_take_runs_costs_a_cell_nothing_and_sync_sends_it_later(
    kind, limit, reason, plain, tmp_path, monkeypatch
):
    with Server("good" if kind == "refused" else kind) as server:
        if kind == "refused":
            server.stop()
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        timed = Timed(Wandb(limit=limit))
        record = run([*CELL, f"outputs={tmp_path}"], Loggers([timed]))
        assert timed.seconds < 2, "files and a process are all that the cell itself pays for"
        assert (record.folder / "samples.parquet").read_bytes() == plain
        ended(tmp_path)
    assert reason in log(tmp_path)
    assert "given up, `lgap-bench sync` sends it later" in log(tmp_path)
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        done = called("sync", "--outputs", str(tmp_path))
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 sent"), done.stdout
        assert server.runs[record.folder.name]["summary"]["robust/mean"] == record.summary()["robust"]["mean"]
    assert list(spool_files.spools(tmp_path).iterdir()) == []


def test_the_child_says_once_that_the_server_is_not_there_while_the_cell_runs(tmp_path, capsys):
    logger = Wandb()
    record = run([*CELL, f"outputs={tmp_path}"], Loggers([logger]))
    heard = capsys.readouterr().err  # on a slow machine the child has said it before the cell ended, and it was told
    _until(lambda: "W&B" in heard or list(spool_files.spools(tmp_path).glob("*/said.txt")))
    for _ in range(2):
        logger.chunk(None)
    (line,) = [line for line in (heard + capsys.readouterr().err).splitlines() if "W&B" in line]
    assert line.startswith("lgap-bench: W&B: http://127.0.0.1:9 cannot be reached")
    assert line.endswith("measuring goes on, `lgap-bench sync` sends it later")
    assert record.complete


def test_a_run_that_was_sent_is_what_the_record_says_and_is_sent_again_only_when_it_changes(tmp_path, monkeypatch):
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        record = run([*CELL, f"outputs={tmp_path}"], Loggers([Wandb(project="own", entity="team")]))
        ended(tmp_path)
        name, meant = record.folder.name, of_record(record, Settings(), {"config": record.config()})
        sent = server.runs[name]
        assert [row["chunk"] for row in sent["history"] if "chunk" in row] == [0, 1, 2]
        assert {key: sent["summary"][key] for key in meant.summary} == meant.summary
        assert (sent["told"]["project"], sent["told"]["entity"], sent["exit"]) == ("own", "team", 0)
        files = {file.name: file.read_bytes() for file in meant.artifact}
        assert {file: server.uploads[f"record-{name}/{file}"] for file in files} == files
        for word in (str(tmp_path), str(Path.cwd()), f'"host":"{socket.gethostname()}"'):
            assert word.encode() not in server.bytes
        assert list((tmp_path / "wandb").glob("offline-run-*")) == [], "what was sent is not kept twice"
        assert not [file for file in Path.home().rglob("*") if "wandb" in str(file.relative_to(Path.home()))]
        assert called("sync", "--outputs", str(tmp_path)).stdout == f"{name}: already sent\n1 already sent\n"
        record.note_lower("apgd", "full", 0.5, "other")
        assert "1 sent" in called("sync", "--outputs", str(tmp_path)).stdout
        assert server.runs[name]["summary"]["lower/robust"] == 0.5
        assert len(server.runs[name]["history"]) == len(sent["history"]), "no row is doubled"


def test_helpers_of_wandb_that_are_killed_cost_no_run(tmp_path):
    run([*CELL, f"outputs={tmp_path}"], Loggers([Wandb(mode="offline")]))
    child = CHILDREN[os.getpid(), tmp_path].process
    killed: set[int] = set()

    def kill_two() -> bool:
        for pid in set(_helpers(child.pid)) - killed if len(killed) < 2 else ():
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        return len(killed) == 2 or "built, finished" in log(tmp_path)

    _until(kill_two, 0.01)
    ended(tmp_path)
    assert killed, "no helper was met"
    (held,) = runs(tmp_path).values()
    assert_same(held, Record(only_record(tmp_path)))
    assert "starts anew: wandb" in log(tmp_path)


def _helpers(pid: int) -> list[int]:
    """wandb-core below a process."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = file.read_text().rpartition(")")[::2]
        except OSError:
            continue
        if "wandb-core" in name and int(rest.split()[1]) == pid:
            found.append(int(file.parent.name))
    return found


def test_a_run_that_cannot_be_written_to_its_end_leaves_the_next_one_whole(tmp_path, monkeypatch):
    from lgap_bench.logger import wandb_write
    from lgap_bench.logger.wandb_run import Run

    for key, value in spool_files.environment(tmp_path).items():
        monkeypatch.setenv(key, value)
    row = {"chunk": 0, "robust": 1.0}
    bad = Run("bad", "a", None, None, (), {"a": 1}, rows=[row], pictures={"grid": tmp_path / "missing.png"})
    with pytest.raises(OSError, match="missing"):
        wandb_write.build(bad, Settings(), tmp_path)
    wandb_write.build(Run("good", "b", None, None, (), {"b": 1}, rows=[row]), Settings(), tmp_path)
    (held,) = runs(tmp_path).values()
    assert (held.id, held.name, held.exit, len(held.rows)) == ("good", "b", 0, 1)
    assert held.config.keys() - {"_wandb"} == {"b"}


def test_disabled_leaves_nothing_behind_and_a_users_own_variable_decides(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run([*CELL, f"outputs={tmp_path}"], Loggers([Wandb(mode="online")]))
    assert not (tmp_path / "wandb").exists()
    assert not CHILDREN
    assert "switched off by WANDB_MODE" in called("sync", "--outputs", str(tmp_path)).stderr


def test_a_users_own_folder_is_taken_also_where_it_is_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_DIR", "mine")
    run([*CELL, f"outputs={tmp_path / 'outputs'}"], Loggers([Wandb(mode="offline")]))
    ended(tmp_path / "outputs")
    assert len(list((tmp_path / "mine" / "wandb").glob("offline-run-*"))) == 1
    assert list((tmp_path / "outputs" / "wandb").glob("offline-run-*")) == []


def test_a_folder_that_cannot_be_written_leaves_out_the_logger_and_not_the_cell(plain, tmp_path, capsys):
    (tmp_path / "wandb").write_text("no folder")
    record = run([*CELL, f"outputs={tmp_path}"], Loggers([Wandb(mode="offline")]))
    assert (record.folder / "samples.parquet").read_bytes() == plain
    assert "logger Wandb failed and is left out" in capsys.readouterr().err


def test_a_child_whose_run_cannot_be_made_gives_up_and_ends(tmp_path):
    record = run([*CELL, f"outputs={tmp_path}"])
    (record.folder / "identity.json").write_text("{}")
    held = Settings(mode="offline", limit=3)
    told = {"kind": "cell", "id": record.folder.name, "state": "finished", "settings": held.plain()}
    child(tmp_path, held).tell({**told, "config": record.config()})
    ended(tmp_path)
    assert "is damaged" in log(tmp_path)
    assert "given up" in log(tmp_path)


def test_a_sweeps_table_is_a_run_of_its_own(tmp_path):
    from lgap_bench.report.page import AtMost, Empty, shown

    rows = [{"row": "LGAP", "paper": 71.7, "robust": AtMost(52.04)}, {"row": "ours", "robust": Empty.NOT_RUN}]
    send_table(tmp_path, "lgap/1 digits", ("row", "paper", "robust"), rows, Settings(mode="offline"), shown)
    ended(tmp_path)
    (held,) = runs(tmp_path).values()
    assert (held.id, held.name, held.job_type, held.exit) == ("table-lgap-1-digits", "lgap/1 digits", "table", 0)
    assert table(held, "table")["data"] == [["LGAP", 71.7, "≤ 52.0"], ["ours", None, "not run"]]


def test_sync_says_that_no_key_is_known(tmp_path, monkeypatch):
    run([*CELL, f"outputs={tmp_path}"])
    monkeypatch.delenv("WANDB_API_KEY")
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        done = called("sync", "--outputs", str(tmp_path))
    assert "not sent: No API key configured" in done.stdout
    assert done.returncode == 1


def test_sync_builds_offline_and_names_each_record_that_cannot_be_sent(tmp_path):
    record = run([*CELL, f"outputs={tmp_path}"])
    other = run([*CELL, "seed=1", f"outputs={tmp_path}"])
    summary = other.folder / "summary.json"
    summary.write_text(summary.read_text().replace('"n": 6', '"n": 7'))
    done = called("sync", "--outputs", str(tmp_path), "--offline")
    assert done.returncode == 1
    lines = sorted(done.stdout.splitlines())
    assert [line for line in lines if line.startswith(f"{record.folder.name}: built: ")]
    assert [line for line in lines if line.startswith(f"{other.folder.name}: not sent: record ")]
    assert "1 built, 1 not sent" in lines
    assert_same(runs(tmp_path)[record.folder.name], record)
    at = time.monotonic()
    done = called("sync", "--outputs", str(tmp_path), record.folder.name)
    assert (done.returncode, done.stdout.count("127.0.0.1:9 cannot be reached")) == (1, 1)
    assert time.monotonic() - at < 60
