"""One cell by several workers: shards in any order and at once, killed and repeated, and always the undisturbed record."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cells import called, identified, only_record, run
from workers import FAR

from lgap_bench.cell.compose import resolved
from lgap_bench.evaluation import loop
from lgap_bench.evaluation.share import claim, shared
from lgap_bench.record import Record
from lgap_bench.runtime import lease
from lgap_bench.runtime.lease import Limits

# Five chunks, the last one of a single image.
CELL = ["purifier=downsample", "attack=bpda", "attack.steps=2", "n=9", "chunk=2", "score_draws=2", "threads=1"]
SAME = ("samples.parquet", "summary.json", "identity.json", "pictures.npz", "grid.png")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the record holds when nothing disturbs it."""
    return contents(run([*CELL, f"outputs={tmp_path_factory.mktemp('whole')}"]).folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SAME}


def shard(outputs: Path, index: int, count: int, *more: str) -> Record:
    return run([*CELL, f"outputs={outputs}", f"shard={index}", f"shards={count}", *more])


def start(outputs: Path, *words: str, slow: float = 0.3) -> subprocess.Popen[str]:
    """A worker in a process of its own that writes down which chunks it computes."""
    command = [sys.executable, str(Path(__file__).parent / "shared_cell.py"), str(outputs / "log"), str(slow)]
    words = (*CELL, f"outputs={outputs}/out", *words)
    return subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def computed(outputs: Path) -> list[tuple[int, int]]:
    """(process, chunk) of every computation that was begun."""
    log = outputs / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(pid), int(index)) for pid, index in map(str.split, lines)]


def ended(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What they say at the end; all of them have to end well."""
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return [out for out, _ in said]


def nothing_is_left(outputs: Path) -> None:
    assert not (outputs / "locks").exists()
    assert not (only_record(outputs) / "chunks").exists()
    assert not list(outputs.rglob("*.part"))


# Shards


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_in_any_order_make_the_undisturbed_record(order, whole, tmp_path):
    for place, index in enumerate(order):
        record = shard(tmp_path, index, 3)
        assert record.complete == (place == 2)
    assert contents(record.folder) == whole
    nothing_is_left(tmp_path)


def test_a_record_that_is_not_whole_says_which_chunks_of_which_shards_are_missing(tmp_path):
    assert Record(tmp_path / "none").missing(5, 2) == {0: [0, 2, 4], 1: [1, 3]}
    record = shard(tmp_path, 1, 3)
    assert not record.complete
    assert record.missing(5, 3) == {0: [0, 3], 2: [2]}
    assert record.missing(5) == {0: [0, 2, 3]}
    assert record.missing(5, 3, images=True) == {0: [0, 3], 1: [1, 4], 2: [2]}, "none of them has its images"


def test_a_shard_says_what_its_cell_waits_for_and_ends_well(tmp_path):
    words = ["run", *CELL, f"outputs={tmp_path}", "logger=none", "shards=4"]
    done = called(*words, "shard=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout
        == "shard 2 of 4: 1 of 1 chunks done; the cell waits for shards 0 (2 of 2), 1 (1 of 1), 3 (1 of 1)\n"
    )
    again = called(*words, "shard=2")
    assert again.stdout == done.stdout
    called(*words, "shard=0"), called(*words, "shard=1")
    last = called(*words, "shard=3")
    assert last.stdout.startswith("downsample + digits/standard on digits"), "whoever finishes last has the numbers"
    assert called(*words, "shard=2").stdout == last.stdout


def test_a_shard_that_is_done_builds_nothing(tmp_path, monkeypatch):
    shard(tmp_path, 1, 3)
    monkeypatch.setattr("lgap_bench.build.build", lambda *_: pytest.fail("it was built"))
    assert not shard(tmp_path, 1, 3).complete
    with pytest.raises(pytest.fail.Exception):
        shard(tmp_path, 0, 3)


def test_a_shard_without_chunks_ends_well_and_makes_nothing(tmp_path):
    done = called("run", *CELL, f"outputs={tmp_path}", "shard=6", "shards=7")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("shard 6 of 7: 0 of 0 chunks done; the cell waits for shards 0 (1 of 1), 1 (1 of 1)")
    assert not list(tmp_path.glob("records/*"))


def test_the_same_call_without_shards_completes_what_they_have_left(whole, tmp_path, monkeypatch):
    made, chunk = [], loop.one_chunk

    def counted(parts, cell, rows, device, *more):
        made.append(rows.start // cell.chunk)
        return chunk(parts, cell, rows, device, *more)

    monkeypatch.setattr(loop, "one_chunk", counted)
    shard(tmp_path, 1, 3)
    record = run([*CELL, f"outputs={tmp_path}"])
    assert made == [1, 4, 0, 2, 3]
    assert contents(record.folder) == whole


def test_a_shard_merges_chunks_that_are_all_there(whole, tmp_path):
    for index in (0, 1):
        shard(tmp_path, index, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lgap_bench.evaluation.summary.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            shard(tmp_path, 2, 3)
    assert contents(shard(tmp_path, 0, 3).folder) == whole
    nothing_is_left(tmp_path)


def test_kept_images_come_from_all_shards_and_chunks_without_them_are_computed_again(tmp_path):
    for index in (0, 1):
        shard(tmp_path / "one", index, 2, "keep_images=true")
        shard(tmp_path / "two", index, 2, f"keep_images={'true' if index else 'false'}")
    plain = run([*CELL, f"outputs={tmp_path}/plain", "keep_images=true"])
    held = (plain.folder / "images.npz").read_bytes()
    assert (only_record(tmp_path / "one") / "images.npz").read_bytes() == held
    assert not (only_record(tmp_path / "two") / "summary.json").exists(), "shard 0 has none of its images"
    record = run([*CELL, f"outputs={tmp_path}/two", "keep_images=true"])
    assert (record.folder / "images.npz").read_bytes() == held


def test_shards_are_neither_in_the_id_nor_in_the_record(tmp_path):
    assert identified([*CELL, "shard=1", "shards=3"]) == identified(CELL)
    experiment = ["experiment=demo/undefended", "n=4", "chunk=2", "attack.steps=1", "score_draws=1", "threads=1"]
    for index in (1, 0):
        record = run([*experiment, f"outputs={tmp_path}", f"shard={index}", "shards=2"])
    kept = json.dumps([record.config(), record.identity(), record.summary(), record.run()])
    assert "shard" not in kept.replace(str(tmp_path), "")
    (asked,) = record.requests()
    assert asked["overrides"] == [*experiment, f"outputs={tmp_path}"], "each shard asks for another cell"


def test_the_run_says_how_long_each_chunk_took_and_names_no_machine(tmp_path):
    record = run([*CELL, f"outputs={tmp_path}"])
    facts = record.run()
    assert len(facts["chunk_seconds"]) == 5
    assert facts["seconds"] == pytest.approx(sum(facts["chunk_seconds"]), abs=0.002)
    assert facts["peak_memory_mib"] > 50
    names = [os.uname().nodename, str(os.getpid())]
    kept = [file.name for file in record.folder.iterdir()] + list(facts)
    assert not [name for name in names if name in kept]


@pytest.mark.parametrize(
    "words, said",
    [
        (["shard=3"], "shard=3 is not below shards=1: shards are counted from 0, write -m 'shard=range(0,4)' shards=4"),
        (["shard=8", "shards=8"], "shard=8 is not below shards=8: shards are counted from 0, write -m 'shard=range(0,8)'"),
        (["shards=8"], "shards=8 without a shard: write -m 'shard=range(0,8)' shards=8, or leave both away"),
        (["shard=-1", "shards=8"], "shard=-1 is not in int [0, inf) or null"),
        (["shard=0", "shards=0"], "shards=0 is not in int [1, inf)"),
        (["shard=1.5", "shards=8"], "shard=1.5 is not in int [0, inf) or null"),
        (["shard=one", "shards=8"], "shard=one is not in int [0, inf) or null"),
        (["shard=1", "shards=null"], "shards=null is not in int [1, inf)"),
    ],
)  # fmt: skip
def test_a_shard_that_cannot_be_is_refused_in_one_line(words, said, torchless):
    assert torchless.refusal("run", *CELL, *words).startswith(f"lgap-bench: {said}")


# Workers at once


@pytest.mark.slow
def test_two_calls_of_one_cell_at_once_share_its_chunks(whole, tmp_path):
    said = ended([start(tmp_path), start(tmp_path)])
    pids, indices = zip(*computed(tmp_path), strict=True)
    assert sorted(indices) == [0, 1, 2, 3, 4], "a chunk was computed twice, or never"
    assert len(set(pids)) == 2, "one of them only waited"
    assert contents(only_record(tmp_path / "out")) == whole
    assert said[0] == said[1], "both end with the record"
    nothing_is_left(tmp_path / "out")


@pytest.mark.slow
def test_shards_that_overlap_compute_no_chunk_twice(whole, tmp_path):
    calls = [("shard=0", "shards=2"), ("shard=0", "shards=3"), ("shard=1", "shards=3"), ()]
    ended([start(tmp_path, *words) for words in calls])
    assert sorted(index for _, index in computed(tmp_path)) == [0, 1, 2, 3, 4]
    assert contents(only_record(tmp_path / "out")) == whole
    nothing_is_left(tmp_path / "out")


@pytest.mark.slow
def test_a_shard_that_is_killed_and_repeated_makes_the_same_record(whole, tmp_path):
    first, second = start(tmp_path, "shard=0", "shards=2", slow=1.0), start(tmp_path, "shard=1", "shards=2")
    while not (begun := [index for pid, index in computed(tmp_path) if pid == first.pid]):
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    (said,) = ended([second])
    assert "the cell waits for shard 0" in said
    assert (tmp_path / "out" / "locks").exists(), "killed too late to show anything"
    at = time.monotonic()
    ended([start(tmp_path, "shard=0", "shards=2", slow=0)])
    assert time.monotonic() - at < 60, "it waited for the dead"
    indices = [index for _, index in computed(tmp_path)]
    assert sorted(indices) == sorted([0, 1, 2, 3, 4, *begun]), "more than the chunk that was being computed is repeated"
    assert contents(only_record(tmp_path / "out")) == whole
    nothing_is_left(tmp_path / "out")


def test_an_error_of_one_worker_leaves_what_others_are_making(tmp_path, monkeypatch):
    cell = resolved([*CELL, f"outputs={tmp_path}"])
    record = Record(tmp_path / "records" / identified(CELL)["cell"])

    def fails(*_):
        raise OSError("the attack has lost its file")

    monkeypatch.setattr(loop, "one_chunk", fails)
    theirs = lease.take(claim(cell, record, 0), worker=FAR)
    with pytest.raises(OSError, match="lost its file"):
        run([*CELL, f"outputs={tmp_path}"])
    assert (record.folder / "identity.json").exists()
    theirs.let_go()
    with pytest.raises(OSError, match="lost its file"):
        run([*CELL, f"outputs={tmp_path}"])
    assert not record.folder.exists(), "the last one leaves nothing"
    assert not (tmp_path / "locks").exists()


# A claim that is lost


def test_who_was_stopped_too_long_takes_the_chunk_of_who_took_over(tmp_path, capsys):
    cell, record = resolved([*CELL, "n=2", f"outputs={tmp_path}"]), Record(tmp_path / "records" / "0")
    chunks: dict[int, dict] = {}

    def make(index: int) -> dict:
        place = claim(cell, record, index)
        (mine,) = place.iterdir()
        mine.rename(place / f"{FAR.name},abc,1")
        chunks[index] = {"by": "them"}
        return {"by": "me"}

    assert list(shared(cell, record, chunks.get, make)) == [(0, {"by": "them"}, False)]
    assert "another took over its chunk 0: computed twice, with the same result" in capsys.readouterr().err
    assert not record.folder.exists(), "theirs was overwritten"


def test_a_chunk_that_was_finished_just_before_it_was_claimed_is_not_computed_again(tmp_path):
    cell, record = resolved([*CELL, "n=2", f"outputs={tmp_path}"]), Record(tmp_path / "records" / "0")
    looks = iter([None, {"by": "them"}])
    made = shared(cell, record, lambda _: next(looks), lambda _: pytest.fail("it was computed"))
    assert list(made) == [(0, {"by": "them"}, False)]
    assert not (tmp_path / "locks").exists()


def test_what_another_worker_gives_up_is_computed_here(tmp_path, capsys):
    cell, record = resolved([*CELL, "n=4", f"outputs={tmp_path}"]), Record(tmp_path / "records" / "0")
    theirs, looks = lease.take(claim(cell, record, 0), worker=FAR), itertools.count()
    made: list[int] = []

    def find(index: int) -> dict | None:
        if index == 0 and next(looks) == 2:  # the first look, one after chunk 1, and one later
            theirs.let_go()
        return None

    def make(index: int) -> dict:
        made.append(index)
        return {}

    list(shared(cell, record, find, make, Limits(look=0.01)))
    assert made == [1, 0]
    said = capsys.readouterr().err
    assert said.count("waiting for chunk 0, which another process computes (process 1 on far, since ") == 1
