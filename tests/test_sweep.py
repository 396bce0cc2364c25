"""Sweeps: whatever becomes of a job is known by name, with any launcher, and the exit code says so."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cells import called, lgap_bench

from lgap_bench.runtime.worker import Worker, read_worker, this_worker
from lgap_bench.sweep import command
from lgap_bench.sweep.job import tracked
from lgap_bench.sweep.status import DONE, FAILED, INTERRUPTED, KILLED, RUNNING, WAITING, Status, SweepFolder
from lgap_bench.sweep.tables import grids, items

TESTS = Path(__file__).parent
CELL = ["attack=pgd", "attack.steps=1", "n=4", "chunk=4", "score_draws=1", "threads=1"]
GOOD = ["run", "-m", "purifier=none", *CELL]
DIES = ["run", "-m", "purifier=none", "purifier._target_=dying_parts.Dies", "+purifier.how=HOW", *CELL]


@pytest.fixture(autouse=True)
def _parts(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(TESTS))


def folder_of(outputs: Path) -> SweepFolder:
    (found,) = (outputs / "sweeps").iterdir()
    return SweepFolder(found)


def states(outputs: Path) -> list[str]:
    return [job.state for job in folder_of(outputs).jobs()]


def test_a_failing_cell_is_named_with_its_words_and_the_others_are_measured(tmp_path):
    done = called(*GOOD, "threat.eps=8,8/255,9", f"outputs={tmp_path}")
    assert done.returncode == 1
    assert states(tmp_path) == [FAILED, DONE, FAILED]
    last = done.stderr[done.stderr.index("sweep none-") :].splitlines()
    assert last[0].endswith("3 cells: 1 measured, 2 failed")
    assert [line.strip() for line in last if line.startswith("    job")] == [
        "job 0: threat.eps=8",
        "job 2: threat.eps=9",
    ]
    again = called(*GOOD, "threat.eps=8/255", f"outputs={tmp_path}")
    assert again.returncode == 0
    assert "1 cell: 1 from records" in again.stderr


def test_the_flag_of_a_sweep_may_stand_last(tmp_path):
    words = [
        sys.executable,
        "-m",
        "lgap_bench.run",
        *CELL,
        "purifier=none",
        f"outputs={tmp_path}",
        "dry=true",
        "seed=0,1",
        "-m",
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 cells: 2 checked" in done.stderr


def test_equal_failures_stand_once_with_all_that_met_them():
    jobs = [Status(i, ["purifier=lgap", f"seed={i}"], FAILED, "no weights") for i in range(30)]
    text = "\n".join(command.told("x", jobs))
    assert text.count("no weights") == 1
    assert text.count("job ") == command.SHOWN
    assert f"and {30 - command.SHOWN} more" in text
    assert "purifier=lgap" not in text  # what all share tells nothing


@pytest.mark.parametrize("how, said", [("exit", "ends the process (exit 0)"), ("bug", "LookupError")])
def test_a_part_that_exits_or_has_a_bug_ends_its_own_cell_alone(how, said, tmp_path):
    words = [word.replace("HOW", how) for word in DIES]
    done = called(*words, "chunk=4,2", f"outputs={tmp_path}")  # of two images at once nobody dies
    assert done.returncode == 1
    assert states(tmp_path) == [FAILED, DONE], done.stderr
    assert said in done.stderr
    if how == "bug":
        (kept, *_) = sorted(tmp_path.glob("sweeps/*/jobs/*.txt"))
        assert "dying_parts.py" in kept.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "joblib"])
def test_any_launcher_tells_good_cells_from_bad_ones(launcher, tmp_path):
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    good = lgap_bench(*GOOD, "seed=0,1", f"hydra/launcher={launcher}", f"outputs={tmp_path / 'good'}")
    assert good.returncode == 0, good.stderr
    assert "2 cells: 2 measured" in good.stderr
    bad = lgap_bench(*GOOD, "threat.eps=8/255,8", f"hydra/launcher={launcher}", f"outputs={tmp_path / 'bad'}")
    assert bad.returncode == 1
    assert "2 cells: 1 measured, 1 failed" in bad.stderr
    assert "threat.eps=8 is not in (0, 1]" in bad.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how, said", [("leave", "ended by itself with exit code 0"), ("kill", "killed by SIGKILL")])
def test_a_process_that_dies_takes_its_own_cell_alone(how, said, tmp_path):
    words = [word.replace("HOW", how) for word in DIES]
    done = lgap_bench(
        *words, "chunk=4,2", "seed=0,1", "hydra/launcher=local", "hydra.launcher.jobs=2", f"outputs={tmp_path}"
    )
    assert done.returncode == 1
    assert sorted(states(tmp_path)) == [DONE, DONE, KILLED, KILLED], done.stderr
    assert said in done.stderr


def started(*words: str, outputs: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "lgap_bench.cli", *words, f"outputs={outputs}"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.1)


def at_work(outputs: Path, count: int) -> bool:
    if not list(outputs.glob("sweeps/*/sweep.json")):
        return False
    return sum(job.state == RUNNING and bool(job.record) for job in folder_of(outputs).jobs()) == count


SLEEPS = [word.replace("HOW", "sleep") for word in DIES]


@pytest.mark.slow
@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130), ("SIGUSR1", 138)])
def test_a_signal_ends_a_sweep_in_one_line_and_its_jobs_know_it(name, code, tmp_path):
    process = started(*SLEEPS, "seed=0,1", outputs=tmp_path)
    wait_for(lambda: at_work(tmp_path, 1))
    process.send_signal(getattr(signal, name))
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert states(tmp_path) == [INTERRUPTED, WAITING]
    assert "2 cells: 1 interrupted, 1 not started" in error
    assert "what is finished is kept, the same call resumes" in error.strip().splitlines()[-1]
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_signal_that_becomes_another_error_on_its_way_ends_the_sweep_all_the_same(tmp_path):
    process = started(*(word.replace("HOW", "swallow") for word in DIES), "seed=0,1", outputs=tmp_path)
    wait_for(lambda: at_work(tmp_path, 1))
    time.sleep(3)  # it sleeps by then
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert states(tmp_path) == [INTERRUPTED, WAITING]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_no_process_outlives_the_local_launcher(name, tmp_path):
    process = started(*SLEEPS, "seed=0,1", "hydra/launcher=local", "hydra.launcher.jobs=2", outputs=tmp_path)
    wait_for(lambda: at_work(tmp_path, 2))
    children = [read_worker(job.worker).pid for job in folder_of(tmp_path).jobs()]
    assert len(set(children)) == 2
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=60)
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and alive(pid) for pid in children), 30)
    wait_for(lambda: states(tmp_path) == [INTERRUPTED, INTERRUPTED], 30)
    assert process.returncode == (143 if name == "SIGTERM" else -signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_same_words_come_back_to_the_same_folder_and_a_living_sweep_keeps_its_own(tmp_path):
    words = ["-m", "purifier=lgap,coup", f"outputs={tmp_path}"]
    first = command.begin(words)
    assert command.begin(list(reversed(words))) == first  # this very process leads it
    head, parent = first.head(), replace(this_worker(), pid=os.getppid(), started="").name
    first.write_head({**head, "worker": parent, "beat": time.time()})
    second = command.begin(words)
    assert second.name == f"{first.name}-2"
    first.write_head({**head, "worker": parent, "beat": time.time(), "ended": time.time()})
    assert command.begin(words) == first


def test_a_job_without_a_sign_of_life_counts_as_killed(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.announce(0, [["seed=0"], ["seed=1"], ["seed=2"]])
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True).stdout
    dead = replace(this_worker(), pid=int(gone), started="1").name
    far = Worker("elsewhere", "another", 1, "1").name
    folder.write(Status(0, ["seed=0"], RUNNING, beat=time.time(), worker=dead))
    folder.write(Status(1, ["seed=1"], RUNNING, beat=time.time() - 600, worker=far))
    folder.write(Status(2, ["seed=2"], RUNNING, beat=time.time(), worker=far))
    assert [job.state for job in folder.jobs()] == [KILLED, KILLED, RUNNING]


def test_a_damaged_status_file_is_a_job_that_waits_and_no_error(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.announce(0, [["seed=0"]])
    folder.file(0).write_text("{")
    assert [job.state for job in folder.jobs()] == [WAITING]
    folder.file(0).write_text(json.dumps({"number": 0, "state": DONE, "of a later version": 1}))
    assert [job.state for job in folder.jobs()] == [DONE]


def test_a_full_disk_costs_the_status_and_not_the_cell(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lgap_bench.sweep.status._write", full)
    outcome = tracked(tmp_path, 0, ["seed=0"], lambda file: (file.phase("on"), (None, "checked"))[1])
    assert outcome.state == "checked"
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_status_shows_a_line_per_cell_and_fails_with_them(tmp_path):
    called(*GOOD, "threat.eps=8/255,8", f"outputs={tmp_path}")
    shown = called("status", f"outputs={tmp_path}")
    assert shown.returncode == 1
    lines = shown.stdout.splitlines()
    assert "threat.eps=8/255" in lines[0]
    assert "done in" in lines[0]
    assert "failed: threat.eps=8 is not in (0, 1]" in lines[1]
    assert lines[2].endswith("2 cells: 1 measured, 1 failed")
    unknown = called("status", "nothing", f"outputs={tmp_path}")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("lgap-bench: sweep nothing is not known here")


@pytest.mark.parametrize("paper", ["lgap", "coup"])
@pytest.mark.parametrize("miniature", [True, False])
def test_the_cells_of_a_papers_tables_are_each_named_once(paper, miniature):
    found = [word for grid in grids(items([paper]), miniature, slow=True) for word in grid]
    names = [name for word in found if word.startswith("experiment=") for name in word[11:].split(",")]
    assert len(names) == len(set(names))
    quick = [word for grid in grids(items([paper]), miniature, slow=False) for word in grid]
    assert not any("/slow/" in word for word in quick)
    assert len(quick) < len(found)


def test_a_dry_table_composes_all_of_its_cells_and_leaves_nothing(tmp_path):
    done = called("tables", "lgap/4", "dataset=digits", "dry=true", f"outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "8 cells: 8 checked" in done.stderr
    assert not list(tmp_path.glob("sweeps/*"))


@pytest.mark.parametrize(
    "words, told",
    [
        (["hydra/launcher=slrum"], "conf/hydra/launcher has slurm, slurm_debug, local, basic"),
        (["hydra/launcher=local", "hydra.launcher.jobs=0"], "hydra.launcher.jobs=0 is no number of processes"),
        (["hydra/launcher=local", "hydra.launcher.jobs=-1"], "hydra.launcher.jobs=-1 is no number of processes"),
        (["hydra/launcher=local", "hydra.launcher.jobs=many"], "hydra.launcher.jobs=many is no number of processes"),
        (["hydra/launcher=local", "hydra.launcher.memory_gb=0"], "hydra.launcher.memory_gb=0 is not positive"),
        (["hydra/launcher=local", "hydra.launcher.gpus=1"], "hydra.launcher.gpus is no key"),
        (["logger=[console,wandbb]"], "logger/wandbb"),
        (["hydra.sweep.dir=here"], "choose a folder with outputs="),
        (["outputs=/proc/nowhere"], "cannot be written"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_begin_is_one_line_and_leaves_nothing(words, told, tmp_path):
    done = called(*GOOD, f"outputs={tmp_path}", *words)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    "words, told",
    [
        (["run", "hydra/launcher=local", "dry=true"], "hydra/launcher=local without -m"),
        (["run", "hydra/launcher=slurm", "purifier=none"], "hydra/launcher=slurm without -m"),
        (["run", "logger=[console,wandb]", "logger.wandb.mode=onlin", "dry=true"], "logger.wandb.mode=onlin"),
        (["run", "logger=[console,wandb]", "logger.wandb.project=a/b", "dry=true"], "project=a/b has / in it"),
        (["tables", "lgap/1", "slow=maybe"], "slow=maybe is neither true nor false"),
        (["tables", "lgpa"], "lgpa is no paper and no table"),
        (["tables"], "no table is named"),
        (["tables", "coup/4"], "nothing to measure here"),
        (["status"], "has no sweeps"),
    ],
)  # fmt: skip
def test_odd_words_are_refused_in_one_line(words, told, tmp_path):
    done = called(*words, f"outputs={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
    assert not list(tmp_path.rglob("*.json"))
