"""Leases: one holder at a time, whoever is killed, stopped or on another machine; and nothing is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import workers
from workers import FAR, GONE, died

from lgap_bench.runtime import files, lease
from lgap_bench.runtime.lease import Limits
from lgap_bench.runtime.worker import Worker, read_worker, this_worker

QUICK = Limits(beat=0.1, stale=2.0, look=0.05)  # a busy machine may keep a beat waiting for a second


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return lease.path(tmp_path, "one")


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease."""
    process = workers.start("hold", tmp_path, "one", QUICK.beat, QUICK.stale)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def taken(place: Path, within: float, limits: Limits = QUICK) -> lease.Lease:
    """The lease, which has to be free within so many seconds."""
    until = time.monotonic() + within
    while (held := lease.take(place, limits)) is None:
        assert time.monotonic() < until, f"still held by {lease.holder(place)}"
        time.sleep(0.02)
    return held


def test_a_lease_is_held_by_one_and_nothing_is_left_of_it(tmp_path, place):
    with lease.lease(tmp_path, "one", "it") as held:
        assert held.held
        assert lease.take(place) is None
        assert lease.holder(place).worker == this_worker()
        assert [file.name for file in (tmp_path / "locks").iterdir()] == ["one.lock"], "an attempt has left its folder"
    assert not held.held
    assert list(tmp_path.iterdir()) == []


def test_an_error_lets_go(tmp_path, place):
    with pytest.raises(RuntimeError), lease.lease(tmp_path, "one", "it"):
        raise RuntimeError
    taken(place, within=0).let_go()


def test_a_killed_holder_is_taken_over_at_once(place, holder):
    assert lease.take(place) is None
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, but nobody has waited for it: /proc still has it
    held = taken(place, within=0, limits=lease.LIMITS)
    assert held.held
    held.let_go()
    assert not place.parent.exists()


def test_a_living_holder_is_never_taken_over_however_long_it_holds(place, holder):
    until = time.monotonic() + 1.5 * QUICK.stale
    while time.monotonic() < until:
        assert lease.take(place, QUICK) is None
        time.sleep(0.05)
    out, _ = holder.communicate()
    assert out == "still held\n"


def test_a_stopped_holder_is_taken_over_after_the_limit_and_finds_out(place, holder):
    os.kill(holder.pid, signal.SIGSTOP)
    at = time.monotonic()
    held = taken(place, within=20)
    assert time.monotonic() - at > QUICK.stale - QUICK.beat - 0.1, "before its time"
    os.kill(holder.pid, signal.SIGCONT)
    out, _ = holder.communicate()
    assert out == "lost\n"
    assert held.held, "who comes back must not let go what is another's now"
    held.let_go()
    assert not place.parent.exists()


@pytest.mark.parametrize("worker", [FAR, Worker("vm.example.org", "", 1 << 22, "")], ids=["far", "without /proc"])
def test_on_another_machine_only_the_beat_tells(place, worker):
    theirs = lease.take(place, Limits(beat=0.1), worker)
    assert theirs is not None
    time.sleep(1.5 * QUICK.stale)
    assert lease.take(place, QUICK) is None, "it beats, and its pid says nothing here"
    theirs._ended.set()
    theirs._thread.join()
    held = taken(place, within=20)
    assert not theirs.held
    theirs.let_go()
    assert held.held
    held.let_go()


def test_clocks_that_differ_do_not_matter(place, monkeypatch):
    theirs = lease.take(place, worker=FAR)
    now = time.time
    for skew in (-3600, 3600):
        monkeypatch.setattr(time, "time", lambda skew=skew: now() + skew)
        assert lease.take(place) is None
    theirs.let_go()


def test_a_pid_that_another_process_has_now_is_no_holder(place):
    lease.take(place, worker=GONE)._ended.set()
    assert this_worker().pid == GONE.pid
    taken(place, within=0).let_go()


def test_a_process_of_another_boot_or_container_is_not_taken_for_gone():
    assert GONE.gone
    assert not this_worker().gone
    assert not Worker(GONE.host, "0-0", GONE.pid, GONE.started).gone


def test_the_name_of_a_worker_can_be_read_back():
    for host in ("node-1.cluster", "odd, name/with %", "1,a,2,3"):
        worker = Worker(host, "e55da595-4026531836", 17, "123")
        assert "/" not in worker.name
        assert read_worker(f"summary.json,{worker.name}.part") == worker
        assert read_worker(f"{worker.name},abc,17") == worker
    assert read_worker("summary.json.123.part") is None


@pytest.mark.slow
def test_eight_that_take_over_from_the_dead_at_once_are_never_two(tmp_path):
    processes = [workers.start("hammer", tmp_path, 50, seed) for seed in range(8)]
    (tmp_path / "go").touch()
    codes = [process.wait(timeout=300) for process in processes]
    assert codes == [0] * 8, "3: two held it at once"
    assert lease.clear(tmp_path, "")
    assert not (tmp_path / "locks").exists()


def test_of_two_that_find_the_same_dead_holder_one_takes_over(place):
    """The slower one has seen the dead holder too, and goes on when the quicker one holds the lease or has let it go."""
    died(lease.take(place))
    seen = lease._held_by(place)
    held = lease.take(place)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            os.rename(place / seen, place / "slower")
        held.let_go()
        held = lease.take(place)
    assert held.held
    held.let_go()


def test_whoever_waits_says_once_for_whom_and_what_is_new(tmp_path, place, capsys):
    news = iter([None, "epoch 1", "epoch 1", "epoch 2"])
    theirs = lease.take(place, worker=FAR)

    def heard() -> str | None:
        found = next(news, "end")
        if found == "end":
            theirs.let_go()
            return None
        return found

    with lease.lease(tmp_path, "one", "train of it", heard, Limits(look=0.05)):
        pass
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("train of it: another process is at it (process 1 on far, since 20"), said
    assert said[0].endswith("), waiting for its result")
    assert said[1:] == ["train of it: epoch 1", "train of it: epoch 2"]


def test_a_lock_of_an_older_version_holds_nobody(place):
    place.parent.mkdir()
    place.touch()
    taken(place, within=0).let_go()


def test_what_the_dead_have_left_goes_and_what_the_living_hold_stays(tmp_path):
    mine, theirs, dead = (lease.path(tmp_path, f"cell-{k}") for k in range(3))
    held, far = lease.take(mine), lease.take(theirs, worker=FAR)
    died(lease.take(dead))
    halves = [tmp_path / "locks" / f".new,{who.name},abc,1" for who in (GONE, FAR, this_worker())]
    for half in halves:
        half.mkdir()
    assert not lease.clear(tmp_path, "cell-")
    assert lease.held(tmp_path, "cell-") == [mine, theirs]
    assert [half.exists() for half in halves] == [False, True, True]
    held.let_go(), far.let_go()
    assert lease.clear(tmp_path, "cell-")


def test_a_file_that_a_living_worker_writes_is_not_tidied_away(tmp_path):
    names = {who: tmp_path / f"summary.json,{worker.name}.part"
             for who, worker in (("mine", this_worker()), ("gone", GONE), ("far", FAR), ("far and old", FAR))}  # fmt: skip
    names["far and old"] = names["far"].with_name(f"old,{FAR.name}.part")
    names["of an older version"] = tmp_path / "summary.json.123.part"
    long_ago = time.time() - files.STALE - 60
    for who, file in names.items():
        file.write_text("half")
        if who != "far":
            os.utime(file, (long_ago, long_ago))
    files.tidy(tmp_path)
    assert [who for who, file in names.items() if file.exists()] == ["mine", "far"]


def test_no_lease_needs_flock(tmp_path):
    """A file system without it says ENOLCK or ENOSYS; here whoever asks for it ends."""
    code = (
        "import fcntl, os, sys\n"
        "def refused(*_): os._exit(7)\n"
        "fcntl.flock = fcntl.lockf = os.lockf = fcntl.fcntl = refused\n"
        "from lgap_bench.run import main\n"
        "main()"
    )
    words = ["purifier=none", "attack=pgd", "attack.steps=1", "n=2", "chunk=1", "score_draws=1", "threads=1"]
    done = subprocess.run([sys.executable, "-c", code, *words, f"outputs={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("records/*/summary.json"))
