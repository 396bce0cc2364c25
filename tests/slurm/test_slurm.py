"""Sweeps on a real SLURM: whatever happens to a job, in the end the records are those of an undisturbed sweep."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, wait_for
from sweeps import SLOW, TABLE, Sweep, command, environment, records

from lgap_bench.sweep.status import SweepFolder

pytest_plugins = ["slurm_fixtures"]  # not in a conftest.py, whose name is that of the other tests' own

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
Records = dict[str, dict[str, list[object]]]


def same(outputs: Path, undisturbed: Records) -> bool:
    """Whether the same records are there, equal in every sample; by what they print as, since NaN is not itself."""
    found = records(outputs)
    assert found.keys() == undisturbed.keys()
    return all(repr(found[name]) == repr(undisturbed[name]) for name in undisturbed)


def test_a_table_goes_through_the_queue_as_job_arrays(cluster: Cluster, table: Records, tmp_path: Path) -> None:
    sweep = Sweep(cluster, tmp_path, *TABLE, "hydra.launcher.gpus_per_node=1")
    assert sweep.end(400) == 0, sweep.said
    assert "6 cells: 6 measured" in sweep.said
    cluster.quiet()
    jobs = cluster.jobs("%i %T %b")
    first = sweep.array()
    # One array of as many as the cluster takes (MaxArraySize=5), then the rest.
    assert len([job for job in jobs if job.startswith(f"{first}_")]) == 5
    assert len(jobs) == 6
    assert all("COMPLETED" in job and "gpu" in job for job in jobs), jobs
    assert same(tmp_path, table)


def test_a_job_whose_time_is_up_goes_on_in_the_next_round(cluster: Cluster, slow: Records, tmp_path: Path) -> None:
    # SLURM looks at its clock every 30 s and warns up to 30 s early: this round lasts 85 to 115 s, the cell 120 and more.
    short = ["hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=5"]
    sweep = Sweep(cluster, tmp_path, *SLOW, "seed=0,1", *short, slow="0:30")
    assert sweep.end(500) == 0, sweep.said
    long, quick = sweep.jobs()
    assert (quick.attempt, quick.state) == (1, "done")
    assert long.attempt > 1
    assert long.state in ("done", "recorded")  # recorded, if the signal came between the record's end and the job's
    log = next(tmp_path.glob("sweeps/*/slurm/*_0_0_log.err")).read_text()
    assert "this job is timed-out" in log
    assert same(tmp_path, slow)


def test_a_batch_script_of_ones_own_is_queued_again_when_slurm_warns(
    cluster: Cluster, slow: Records, tmp_path: Path
) -> None:
    """What `#SBATCH --signal=B:USR1@120` sends, to a sweep that one job runs cell by cell."""
    script, log = tmp_path / "job.sh", tmp_path / "job.log"
    script.write_text(f"#!/bin/bash\nexec {shlex.join(command(tmp_path, *SLOW, 'seed=0,1'))}\n")
    submit = ["sbatch", "--parsable", "--requeue", "--open-mode=append", f"--output={log}", str(script)]
    own = environment(cluster.environment, "0:7")
    number = subprocess.run(submit, env=own, capture_output=True, text=True, check=True).stdout.strip()

    def begun() -> bool:
        folders = list(tmp_path.glob("sweeps/*"))
        held = SweepFolder(folders[0]).job(0) if folders else None
        return held is not None and held.state == "running" and held.images >= 1

    wait_for("the first chunk", 120, begun)
    assert cluster.tells(["scancel", "--batch", "--signal=USR1", number])
    wait_for("the second round", 200, lambda: "2 cells: 2 measured" in log.read_text())
    assert (
        f"interrupted (SIGUSR1); what is finished is kept, the same call resumes; job {number} is queued again"
        in log.read_text()
    )
    assert same(tmp_path, slow)


def test_preempted_and_requeued_jobs_go_on(cluster: Cluster, slow: Records, tmp_path: Path) -> None:
    sweep = Sweep(cluster, tmp_path, *SLOW, "seed=0,1", slow="0:7,1:7")
    array = sweep.array()
    sweep.until(0, images=1)
    sweep.until(1, images=1)
    assert cluster.tells(["scontrol", "requeue", f"{array}_1"])
    node = cluster.say("squeue", "--noheader", "--jobs", f"{array}_0", "--format", "%N")
    urgent = ["--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"]
    assert cluster.tells(["sbatch", *urgent])
    assert sweep.end(300) == 0, sweep.said
    assert [(job.state, job.attempt) for job in sweep.jobs()] == [("done", 2), ("done", 2)]
    assert same(tmp_path, slow)


def test_the_jobs_of_a_lost_node_go_on_elsewhere(cluster: Cluster, slow: Records, tmp_path: Path) -> None:
    sweep = Sweep(cluster, tmp_path, *SLOW, "seed=0,1", slow="0:7,1:7")
    array = sweep.array()
    sweep.until(0, images=1)
    node = cluster.say("squeue", "--noheader", "--jobs", f"{array}_0", "--format", "%N")
    cluster.lose(node)
    assert sweep.end(300) == 0, sweep.said
    assert sweep.jobs()[0].attempt == 2
    assert "down" in cluster.node_state(node)
    assert same(tmp_path, slow)


def test_a_killed_launcher_loses_and_doubles_nothing(cluster: Cluster, slow: Records, tmp_path: Path) -> None:
    words, late = (*SLOW, "seed=0,1"), "0:7,1:12"
    first = Sweep(cluster, tmp_path, *words, slow=late)
    first.until(0, images=1)
    beside = Sweep(cluster, tmp_path, *words, slow=late)  # while the first still leads: a folder of its own
    wait_for("the second call to find the jobs", 60, lambda: "2 jobs of an earlier call are in SLURM" in beside.said)
    first.kill()
    again = Sweep(cluster, tmp_path, *words, slow=late)
    for call in (beside, again):
        assert call.end(300) == 0, call.said
        assert "2 cells: 2 measured" in call.said
    assert "2 jobs of an earlier call are in SLURM" in again.said
    cluster.quiet()
    jobs = [job for job in cluster.jobs() if int(job.split()[0].partition("_")[0]) >= int(first.array())]
    assert [job.split()[1] for job in jobs] == ["COMPLETED", "COMPLETED"], jobs  # no job was submitted twice
    assert same(tmp_path, slow)


def test_a_cancelled_job_is_named_and_made_up_for(cluster: Cluster, slow: Records, tmp_path: Path) -> None:
    sweep = Sweep(cluster, tmp_path, *SLOW, "seed=0,1", slow="1:20")
    sweep.until(1, images=1)
    assert cluster.tells(["scancel", f"{sweep.array()}_1"])
    assert sweep.end(200) == 1, sweep.said
    assert "2 cells: 1 measured, 1 killed" in sweep.said
    assert "SLURM says CANCELLED" in sweep.said
    assert "seed=1" in sweep.said
    again = Sweep(cluster, tmp_path, *SLOW, "seed=0,1")
    assert again.end(200) == 0, again.said
    assert "2 cells: 1 measured, 1 from records" in again.said
    assert same(tmp_path, slow)


def test_a_failing_cell_fails_for_slurm_too(cluster: Cluster, slow: Records, tmp_path: Path) -> None:
    look = f'hydra.launcher.setup=["env > {tmp_path}/environment"]'
    cluster.environment["WANDB_SERVICE"] = "3-1-tcp-localhost-1"
    try:
        sweep = Sweep(cluster, tmp_path, *SLOW, "seed=0,1", "threat.eps=48/255,8", look)
        assert sweep.end(300) == 1, sweep.said
    finally:
        del cluster.environment["WANDB_SERVICE"]
    assert "4 cells: 2 measured, 2 failed" in sweep.said
    assert sweep.said.count("threat.eps=8 is not in") == 1  # once, with both of its jobs
    array = sweep.array()
    cluster.quiet()
    shown = [cluster.say("scontrol", "show", "job", f"{array}_{number}") for number in range(4)]
    assert ["JobState=FAILED" in job and "ExitCode=1:0" in job for job in shown] == [False, True, False, True], shown
    if cluster.accounting:
        asked = ("sacct", "-X", "-n", "-P", "-j", array, "-o", "State,ExitCode")
        told = ["COMPLETED|0:0"] * 2 + ["FAILED|1:0"] * 2
        wait_for("the books", 20, lambda: sorted(cluster.say(*asked).splitlines()) == told)
    assert same(tmp_path, slow)
    given = (tmp_path / "environment").read_text().splitlines()
    assert not [line for line in given if line.startswith("WANDB_SERVICE=")]
    assert "SRUN_CPUS_PER_TASK=1" in given


def test_a_stopped_controller_stops_nothing(cluster: Cluster, slow: Records, tmp_path: Path) -> None:
    sweep = Sweep(cluster, tmp_path, *SLOW, "seed=0,1", slow="0:4,1:14")
    sweep.until(1, images=1)
    cluster.stop("slurmctld")
    time.sleep(45)  # SlurmctldTimeout is 10; one of the jobs ends meanwhile
    cluster.start_controller()
    assert sweep.end(300) == 0, sweep.said
    assert "SLURM does not answer" in sweep.said
    assert [(job.state, job.attempt) for job in sweep.jobs()] == [("done", 1), ("done", 1)]
    assert same(tmp_path, slow)


def test_shards_of_one_cell_are_jobs_like_others(cluster: Cluster, slow: Records, tmp_path: Path) -> None:
    sweep = Sweep(cluster, tmp_path, *SLOW, "seed=0,1", "shard=range(0,2)", "shards=2", slow="0:6,1:1")
    array = sweep.array()
    sweep.until(0, images=1)
    assert cluster.tells(["scontrol", "requeue", f"{array}_0"])
    assert sweep.end(300) == 0, sweep.said
    assert sweep.jobs()[0].attempt == 2
    assert same(tmp_path, slow)


def test_what_slurm_refuses_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    wrong = Sweep(cluster, tmp_path / "partition", *SLOW, "seed=0,1", "hydra.launcher.partition=nowhere")
    assert wrong.end(60) == 1
    (line,) = wrong.said.strip().splitlines()
    assert line.startswith("lgap-bench: SLURM did not take the jobs (")
    assert "partition" in line
    large = Sweep(cluster, tmp_path / "cores", *SLOW, "seed=0,1", "hydra.launcher.cpus_per_task=9")
    wait_for("a hint", 100, lambda: "2 wait: PartitionConfig, which may never end" in large.said)
    large.process.terminate()
    assert large.end(60) == 143
    assert f"scancel {large.array()}" in large.said
    cluster.clear()
    cluster.stop("slurmctld")
    silent = Sweep(cluster, tmp_path / "controller", *SLOW, "seed=0,1")
    assert silent.end(120) == 1
    (line,) = silent.said.strip().splitlines()
    assert "Unable to contact slurm controller" in line


def test_without_accounting_nobody_waits_for_ever(
    make_cluster: Callable[..., Cluster], slow: Records, tmp_path: Path
) -> None:
    bare = make_cluster(accounting=False, min_job_age=2)  # a job that has ended is forgotten before anybody asks
    sweep = Sweep(bare, tmp_path, *SLOW, "seed=0,1", slow="1:20")
    sweep.until(1, images=1)
    assert bare.tells(["scancel", f"{sweep.array()}_1"])
    assert sweep.end(200) == 1, sweep.said
    assert "2 cells: 1 measured, 1 killed" in sweep.said
    assert "SLURM says " in sweep.said
    again = Sweep(bare, tmp_path, *SLOW, "seed=0,1")
    assert again.end(200) == 0, again.said
    assert same(tmp_path, slow)
