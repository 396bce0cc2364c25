"""What stands between a sweep's words and its jobs: every cell once, and a word while the configs are read."""

import time
from types import SimpleNamespace

from cells import called
from omegaconf import OmegaConf

from lgap_bench.sweep import sweeper
from lgap_bench.sweep.status import SUBMITTED, Status, SweepFolder
from lgap_bench.sweep.watch import left


def test_a_cell_that_is_named_twice_is_one_job(tmp_path):
    done = called("run", "-m", "purifier=none,none", "attack=none", "seed=0,1,0", "dry=true", f"outputs={tmp_path}")
    assert "2 cells: 2 checked" in done.stderr, done.stderr


def test_a_sweep_that_takes_long_to_read_its_configs_says_so(capsys, monkeypatch):
    monkeypatch.setattr(sweeper, "SOON", 0.2)
    slow = SimpleNamespace(load_sweep_config=lambda **_: time.sleep(0.3))
    config = OmegaConf.create({"hydra": {"sweep": {"dir": "sweeps/name"}}})
    own = SimpleNamespace(hydra_context=SimpleNamespace(config_loader=slow), config=config)
    sweeper.composed(own, [["seed=0"], ["seed=1"]])
    assert capsys.readouterr().err == ""  # the first cell's own line comes at once
    sweeper.composed(own, [[f"seed={seed}"] for seed in range(6)])
    assert capsys.readouterr().err == "sweep name: reading configs, 1 of 6\n"


def test_the_watch_ends_where_nobody_will_start_what_waits(tmp_path):
    folder = SweepFolder(tmp_path / "sweeps" / "none-0123abcd")
    folder.write_head({"jobs": [["seed=0"], ["seed=1"]], "ended": time.time(), "began": time.time()})
    folder.write(Status(0, ["seed=0"], "done"))
    folder.write(Status(1, ["seed=1"]))
    shown = called("status", "--watch", f"outputs={tmp_path}")
    assert shown.stdout.splitlines()[-1].startswith("  nobody leads this sweep any more: the same command again")
    jobs = folder.jobs()
    assert left(folder, jobs)
    folder.write(Status(1, ["seed=1"], "running", beat=time.time()))
    assert not left(folder, folder.jobs()), "one of its jobs still runs, wherever that is"
    (folder.path / SUBMITTED).write_text("[]")
    assert not left(folder, jobs), "SLURM starts it some time"
    (folder.path / SUBMITTED).unlink()
    folder.write_head({"jobs": [["seed=0"], ["seed=1"]], "worker": "elsewhere,0-0,1,1", "beat": time.time()})
    assert not left(folder, jobs), "its launcher lives, on another machine"
    folder.write_head({"jobs": [["seed=0"], ["seed=1"]], "worker": "elsewhere,0-0,1,1", "beat": time.time() - 999})
    assert left(folder, jobs), "its launcher was killed"


def test_the_folders_of_one_command_have_one_name(tmp_path):
    names = ("lgap-1-0123abcd", "lgap-1-0123abcd-2", "lgap-1-0123abcd-13", "lgap-1-0123abce", "lgap-1-0123abcd-x")
    folders = [SweepFolder(tmp_path / name) for name in names]
    for folder in folders:
        folder.write_head({})
    assert [folder.shared_name for folder in folders[:3]] == [names[0]] * 3
    assert [each.name for each in folders[1].family()] == [names[1], names[0], names[2]]
    assert [each.name for each in folders[3].family()] == [names[3]]
