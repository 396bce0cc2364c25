"""The launcher for SLURM where no SLURM is: its settings, what it reads of SLURM's answers, what it makes of jobs' ends.

`make test-slurm` has the same on a real one.
"""

from __future__ import annotations

import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cells import called
from omegaconf import OmegaConf

from lgap_bench import CONF
from lgap_bench.launcher.slurm import earlier, queue, watch
from lgap_bench.launcher.slurm.queue import Standing
from lgap_bench.launcher.slurm.settings import Settings
from lgap_bench.launcher.slurm.submit import Job, batches
from lgap_bench.launcher.slurm.watch import Watch
from lgap_bench.runtime.requeue import taken_away
from lgap_bench.sweep.status import SUBMITTED, Status, SweepFolder


def keys(name: str) -> dict[str, object]:
    """A launcher's file as Hydra composes it."""
    config = OmegaConf.merge(
        *(OmegaConf.load(CONF / "hydra" / "launcher" / f"{each}.yaml") for each in ("slurm", name))
    )
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in ("_target_", "defaults")}


@pytest.mark.parametrize("name", ["slurm", "slurm_debug"])
def test_every_key_of_the_file_reaches_sbatch(name):
    settings = Settings(
        **{**keys(name), "partition": "gpu", "gpus_per_node": 1, "mem_gb": 1.5, "setup": ["module load x"]}
    )
    parameters = settings.parameters()
    assert (parameters["partition"], parameters["gpus_per_node"], parameters["mem"]) == ("gpu", 1, "1536MB")
    assert parameters["setup"] == ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK", "module load x"]
    assert "account" not in parameters  # null is the cluster's own choice
    assert parameters["additional_parameters"] == {"requeue": True}


@pytest.mark.parametrize(
    "key, value",
    [
        ("timeout_min", 0),
        ("timeout_min", "1:00:00"),
        ("signal_delay_s", 240 * 60),
        ("max_num_timeout", -1),
        ("cpus_per_task", True),
        ("array_parallelism", None),
        ("array_max", 0),
        ("mem_gb", -1),
        ("mem_gb", "8G"),
    ],
)
def test_a_number_that_slurm_would_misread_is_refused(key, value):
    with pytest.raises(ValueError, match=rf"hydra\.launcher\.{key}={value} is not") as refusal:
        Settings(**{**keys("slurm"), key: value})
    assert "\n" not in str(refusal.value)


def test_more_jobs_than_an_array_may_have_become_several_arrays():
    assert batches(range(7), 3) == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`cluster(squeue=..., sacct=...)`: commands that answer with these lines of shell."""

    def answer(**programs: str) -> None:
        for name, body in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
            (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return answer


# As SLURM 22.05 prints them.
GONE = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
DOWN = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
NO_BOOKS = "echo 'Slurm accounting storage is disabled' >&2; exit 1"


def test_the_queue_is_asked_first_and_the_books_for_what_it_has_forgotten(cluster):
    cluster(
        squeue="printf '12_0|RUNNING|None\\n12_1|PENDING|Resources\\n99|RUNNING|None\\n'",
        sacct="printf '12_2|CANCELLED by 1000\\n12_0|COMPLETED\\n'",
    )
    assert queue.standings(["12_0", "12_1", "12_2", "12_3"]) == {
        "12_0": Standing("RUNNING"),
        "12_1": Standing("PENDING", "Resources"),
        "12_2": Standing("CANCELLED"),
        "12_3": Standing(queue.GONE),
    }


def test_a_job_that_nobody_knows_is_gone_also_without_accounting(cluster):
    cluster(squeue=GONE, sacct=NO_BOOKS)
    assert queue.standings(["7"])["7"].ended


def test_a_controller_that_does_not_answer_ends_no_job(cluster):
    cluster(squeue=DOWN, sacct="printf '7|FAILED\\n'")
    with pytest.raises(queue.Silent, match="Unable to contact slurm controller"):
        queue.standings(["7"])


def test_sbatch_is_quoted_without_its_name():
    said = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid\n"
    assert queue.words(said) == "invalid partition specified: x; Batch job submission failed: Invalid"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch looks as often as it can."""
    for name, seconds in {"LOOK": 0.01, "ASK": 0.02, "SURE": 0.1, "LATE": 0.2, "STALE": 0.0}.items():
        monkeypatch.setattr(watch, name, seconds)


def watched(folder: SweepFolder, states: list[str], held: Status, result: object = None) -> Status:
    """A job's status once the watch is done, where SLURM says one state after the other, each ten times."""
    job = Job("12_0", held.number, folder.path / "result.pkl", folder.path / "log")
    folder.write(held)
    if result is not None:
        job.result.write_bytes(pickle.dumps(result))
    answers = iter([state for state in states for _ in range(10)])
    last = states[-1] if states else "RUNNING"

    def ask(ids: object) -> dict[str, Standing]:
        state = next(answers, last)
        if state == "silent":
            raise queue.Silent("no answer")
        return {job.id: Standing(state)}

    patient = Watch(folder, ask)
    patient.add([job])
    patient.wait()
    found = folder.job(held.number)
    assert found
    return found


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("held", ["waiting", "running", "interrupted"])
@pytest.mark.parametrize("state", ["CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", queue.GONE])
def test_a_job_that_slurm_ended_is_named(tmp_path, held, state):
    found = watched(SweepFolder(tmp_path), ["RUNNING", state], Status(0, state=held))
    assert (found.state, state in found.sentence) == ("killed", True)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("held", ["done", "recorded", "failed"])
def test_what_a_job_said_at_its_end_stays(tmp_path, held):
    found = watched(SweepFolder(tmp_path), ["RUNNING", "NODE_FAIL"], Status(0, state=held, sentence="its own"))
    assert (found.state, found.sentence) == (held, "its own")


@pytest.mark.usefixtures("quick")
def test_a_node_that_fails_and_a_silent_controller_end_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "SURE", 30.0)  # NODE_FAIL stands there for a moment, before the job is queued again
    folder = SweepFolder(tmp_path)
    seen = []
    real = Watch._queued_again

    def queued(self, job, standing):
        seen.append(folder.job(0).state)
        real(self, job, standing)
        if len(seen) == 15:  # the second round has ended
            job.result.write_bytes(pickle.dumps(("success", None)))
            folder.write(Status(0, state="done"))

    monkeypatch.setattr(Watch, "_queued_again", queued)
    found = watched(
        folder, ["silent", "NODE_FAIL", "PENDING", "RUNNING"], Status(0, state="running", beat=time.time() - 9)
    )
    assert found.state == "done"
    assert "interrupted" in seen  # while it waited in the queue


WORDS = {0: ["seed=0", "n=8"], 1: ["seed=1", "n=8"], 2: ["seed=2", "n=8"]}


def submitted(folder: SweepFolder, array: int) -> list[Job]:
    """Three jobs that SLURM has taken for a sweep, as its launcher writes them down."""
    folder.write_head({"words": []})
    jobs = [
        Job(f"{array}_{number}", number, folder.path / f"{array}_{number}.pkl", folder.path / "log") for number in WORDS
    ]
    earlier.keep(folder, jobs, WORDS)
    return jobs


def test_what_an_earlier_call_has_in_the_queue_is_not_submitted_again(tmp_path, cluster):
    cluster(squeue="printf '12_0|RUNNING|None\\n12_1|PENDING|Resources\\n12_2|CANCELLED|None\\n'", sacct=NO_BOOKS)
    first, second = SweepFolder(tmp_path / "sweep-0123abcd"), SweepFolder(tmp_path / "sweep-0123abcd-2")
    submitted(first, 12)
    for folder in (first, second):  # the first call is dead, or still leads its own folder
        found = earlier.waiting(folder, WORDS)
        assert [(job.id, job.number, job.home) for job in found] == [("12_0", 0, first), ("12_1", 1, first)]
    assert "2 jobs of an earlier call are in SLURM already" in earlier.told(found)
    assert "scancel 12" in earlier.told(found)
    other = SweepFolder(tmp_path / "sweep-0123abce")
    assert earlier.waiting(other, WORDS) == []
    # Another logger, or the same cells in another order: their status files have other names.
    changed = {0: ["n=8", "seed=0"], 1: [*WORDS[1], "logger=none"], 2: WORDS[1]}
    assert [job.id for job in earlier.waiting(second, changed)] == ["12_0"]
    (first.path / "12_0.pkl").write_bytes(b"")  # its Python has come to its end
    assert [job.id for job in earlier.waiting(first, WORDS)] == ["12_1"]


def test_a_controller_that_is_down_or_a_damaged_note_holds_nothing_back(tmp_path, cluster):
    cluster(squeue=DOWN, sacct=NO_BOOKS)
    folder = SweepFolder(tmp_path / "sweep-0123abcd")
    submitted(folder, 12)
    assert earlier.waiting(folder, WORDS) == []
    cluster(squeue="printf '12_0|RUNNING|None\\n'")
    assert len(earlier.waiting(folder, WORDS)) == 1
    for text in ("[{", "{}", "[1]", '[{"id": 12}]'):
        (folder.path / SUBMITTED).write_text(text)
        assert earlier.waiting(folder, WORDS) == []


def test_jobs_that_are_submitted_again_take_the_place_of_those_before(tmp_path, cluster):
    cluster(squeue="printf '12_0|RUNNING|None\\n15_0|RUNNING|None\\n'", sacct=NO_BOOKS)
    folder = SweepFolder(tmp_path / "sweep-0123abcd")
    submitted(folder, 12)
    submitted(folder, 15)
    assert [job.id for job in earlier.waiting(folder, WORDS)] == ["15_0"]


@pytest.mark.usefixtures("quick")
def test_the_job_of_another_call_is_told_here_as_its_own_folder_has_it(tmp_path):
    first, second = SweepFolder(tmp_path / "sweep-0123abcd"), SweepFolder(tmp_path / "sweep-0123abcd-2")
    first.write(Status(0, ["seed=0"], state="running", images=4, n=8, attempt=1, beat=time.time()))
    second.write(Status(0, ["seed=0"]))
    job = Job("12_0", 0, tmp_path / "result.pkl", tmp_path / "log", home=first)
    patient = Watch(second, lambda ids: {job.id: Standing("RUNNING")})
    patient.add([job])
    assert second.job(0) == first.job(0)
    first.write(Status(0, ["seed=0"], state="failed", sentence="its own"))
    job.result.write_bytes(pickle.dumps(("error", "CellFailed")))
    patient.wait()
    assert (second.job(0).state, second.job(0).sentence) == ("failed", "its own")
    assert not patient.unheard


@pytest.mark.usefixtures("quick")
def test_a_job_that_had_said_its_last_word_before_the_command_came_again_is_asked_again(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.write(Status(0, ["seed=0"]))  # announced anew: its `done` is gone
    job = Job("12_0", 0, tmp_path / "result.pkl", tmp_path / "log", home=folder)
    patient = Watch(folder, lambda ids: {job.id: Standing("RUNNING")})
    patient.add([job])
    job.result.write_bytes(pickle.dumps(("success", None)))
    patient.wait()
    assert (patient.unheard, folder.job(0).state) == ([job], "waiting")


@pytest.mark.usefixtures("quick")
def test_a_job_that_broke_before_its_cell_began_says_what_broke(tmp_path):
    found = watched(SweepFolder(tmp_path), [], Status(0), ("error", "Traceback ...\nImportError: no libcuda\n"))
    assert (found.state, "ImportError: no libcuda" in found.sentence) == ("killed", True)


def raised(work: Callable[[], object]) -> BaseException:
    """What a piece of code raises, with where it came from."""
    try:
        work()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def handled(monkeypatch: pytest.MonkeyPatch, rounds: int) -> BaseException:
    """What submitit's own handler raises in the midst of other code, with so many rounds left."""
    job_environment = pytest.importorskip("submitit.core.job_environment")
    utils = pytest.importorskip("submitit.core.utils")

    class Again:
        """What can be queued again."""

        def checkpoint(self) -> None:
            """Asked for by submitit."""

    delayed = utils.DelayedSubmission(Again())
    delayed.set_timeout(1, rounds)  # of one minute: any signal counts as a time-out
    environment = job_environment.JobEnvironment.__new__(type("Own", (job_environment.JobEnvironment,), {}))
    monkeypatch.setattr(job_environment, "_checkpoint", lambda *given: "")
    handler = job_environment.SignalHandler(environment, None, delayed)
    held = signal.signal(signal.SIGUSR2, handler.checkpoint_and_try_requeue)
    try:
        return raised(lambda: signal.raise_signal(signal.SIGUSR2))
    finally:
        signal.signal(signal.SIGUSR2, held)


def test_the_handler_s_exit_is_an_interruption_and_a_part_s_own_is_not(monkeypatch):
    assert "put back into the queue" in (taken_away(handled(monkeypatch, rounds=1)) or "")
    assert "max_num_timeout" in (taken_away(handled(monkeypatch, rounds=0)) or "")
    assert taken_away(raised(lambda: sys.exit(3))) is None
    assert taken_away(raised(lambda: int("x"))) is None


def test_a_missing_library_or_cluster_is_one_line(tmp_path, monkeypatch):
    words = ("run", "-m", "hydra/launcher=slurm", "purifier=none", "attack=none", "seed=0,1", f"outputs={tmp_path}")
    monkeypatch.setenv("PATH", str(tmp_path))
    pytest.importorskip("submitit")
    answer = called(*words)
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert "sbatch, srun, squeue, scontrol is not on PATH" in answer.stderr
    monkeypatch.setitem(sys.modules, "submitit", None)
    answer = called(*words)
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert "pip install 'lgap-bench[slurm]'" in answer.stderr
