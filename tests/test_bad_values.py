"""Bad values: one line that names key, value and mend, before anything is measured, with nothing left half-written."""

import errno
import os

import pytest
from cells import lgap_bench, run

from lgap_bench.cell.compose import resolved
from lgap_bench.runtime import files
from lgap_bench.runtime.errors import is_user_error, sentence

L2, TUNED = "threat=digits/l2", "finetune=lgap"
BAD = [
    (["purifier=null"], ["purifier=null", "purifier=none"]),
    (["attack=null"], ["attack=null", "attack=none"]),
    (["view=null"], ["view=null", "view=none"]),
    (["finetune=null"], ["finetune=null", "finetune=none"]),
    (["subset=null"], ["subset=null", "subset=none"]),
    (["dataset=null"], ["dataset=null", "dataset=<name>"]),
    (["classifier=null"], ["classifier=null", "classifier=<name>"]),
    (["threat=null"], ["threat=null", "threat=<name>"]),
    (["captioner=null"], ["captioner=null", "captioner=empty"]),
    (["purifier/guidance=null"], ["purifier/guidance=null", "--help"]),
    (["~purifier"], ["purifier=null", "purifier=none"]),
    (["~attack._target_"], ["attack has no _target_", "attack=none"]),
    (["outputs="], ["outputs=''", "outputs=folder"]),
    (["outputs=null"], ["outputs=null", "outputs=folder"]),
    (["outputs=3"], ["outputs=3", "outputs=folder"]),
    (["outputs=[a]"], ["outputs=['a']", "outputs=folder"]),
    (["outputs=~nobody-of-this-name/x"], ["outputs=~nobody-of-this-name/x", "key="]),
    (["data="], ["data=''", "data=folder"]),
    (["clip=3"], ["clip=3", "CLIPModel"]),
    (["threads=100000"], ["threads=100000", "cores", "null"]),
    (["threads=0"], ["threads=0", "int [1, inf)"]),
    (["threads=two"], ["threads=two", "int [1, inf)"]),
    (["n=few"], ["n=few", "int [1, inf)"]),
    (["n=1.5"], ["n=1.5", "int [1, inf)"]),
    (["n=[4]"], ["n=[4]", "int [1, inf)"]),
    (["n=null"], ["n=null", "int [1, inf)"]),
    (["seed=abc"], ["seed=abc", "4294967295"]),
    (["seed=0.5"], ["seed=0.5", "4294967295"]),
    (["seed=[0]"], ["seed=[0]", "4294967295"]),
    (["chunk=true"], ["chunk=True", "int [1, inf)"]),
    (["chunk={a: 1}"], ["chunk={'a': 1}", "int [1, inf)"]),
    (["keep_images=maybe"], ["keep_images=maybe", "true | false"]),
    ([L2, "threat.eps=56"], ["threat.eps=56", "55.43", "diagonal"]),
    ([L2, "threat.eps=0"], ["threat.eps=0", "(0, 55.43]"]),
    ([L2, "attack.step_size=100"], ["attack.step_size=100", "55.43", "eps/4"]),
    (["threat.eps=[8]"], ["threat.eps=[8]", "8/255"]),
    (["threat.eps={a: 1}"], ["threat.eps={'a': 1}", "8/255"]),
    (["threat.eps=1/0"], ["threat.eps=1/0", "8/255"]),
    (["captioner=given"], ["captioner.file=???", "set captioner.file=..."]),
    (["captioner.prompt=???"], ["captioner.prompt=???", "set captioner.prompt=..."]),
    (["attack.steps=???"], ["attack.steps=???", "set attack.steps=..."]),
    (["n=???"], ["n=???", "set n=..."]),
    ([TUNED, "finetune.milestones=[a]"], ["finetune.milestones=['a']", "[60, 120]"]),
    ([TUNED, "finetune.milestones=[1.5]"], ["finetune.milestones=[1.5]", "[60, 120]"]),
    ([TUNED, "finetune.milestones=[0]"], ["finetune.milestones=[0]", "[60, 120]"]),
    ([TUNED, "finetune.milestones=5"], ["finetune.milestones=5", "[60, 120]"]),
    (["purifier.captioner={_target_: os.system}"], ["purifier.captioner._target_=os.system", "your own package"]),
    (["purifier.captioner={_target_: builtins.eval}"], ["purifier.captioner._target_=builtins.eval", "your own"]),
    (["purifier.prior={_target_: subprocess.run}"], ["purifier.prior._target_=subprocess.run", "your own package"]),
    (["purifier._target_=shutil.rmtree"], ["purifier._target_=shutil.rmtree", "your own package"]),
    (["attack._target_=hydra.utils.get_method"], ["attack._target_=hydra.utils.get_method", "your own package"]),
    (["view._target_=eval"], ["view._target_=eval", "package.module.Name"]),
    (["view._target_=3"], ["view._target_=3", "package.module.Name"]),
    (["purifier.captioner={text: a}"], ["purifier.captioner", "_target_", "captioner=<name>"]),
    (["purifier.negative_prompt={_target_: os.system}"], ["purifier.negative_prompt._target_=os.system"]),
    (["view._target_=lgap_bench.noise.ROLES"], ["view._target_=lgap_bench.noise.ROLES", "mend the name"]),
    (["dataset.classes=3"], ["dataset.classes=3", "list of names"]),
    (["dataset.classes=[1,2]"], ["dataset.classes=[1, 2]", "quotes"]),
    (["dataset.synonyms=[a]"], ["dataset.synonyms=['a']", "mapping"]),
    (["dataset.synonyms={one: uno}"], ["dataset.synonyms={'one': 'uno'}", "mapping"]),
    (["dataset.caption=3"], ["dataset.caption=3", "a text"]),
    (["captioner=fixed", "captioner.text=3"], ["captioner.text=3", "a text"]),
    (["captioner=fixed", "captioner.text=null"], ["captioner.text=null", "a text"]),
    (["purifier.negative_prompt=[a]"], ["purifier.negative_prompt=['a']", "a text"]),
    (["purifier.guidance_scale=much"], ["purifier.guidance_scale=much", "[0, 100]"]),
    (["attack.class_weight=heavy"], ["attack.class_weight=heavy", "[0, inf)"]),
    (["+atack.größe=1"], ["+atack.größe=1", "ASCII"]),
    (["n=[1"], ["n=[1", "quotes"]),
]  # fmt: skip


@pytest.mark.parametrize("overrides, parts", BAD, ids=[" ".join(case[0]) for case in BAD])
def test_a_bad_value_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, overrides, parts):
    monkeypatch.chdir(tmp_path)
    given = [] if overrides[0].startswith("outputs=") else ["outputs=out"]
    with pytest.raises(Exception) as raised:  # noqa: PT011 whose error it is stands below
        run([*given, *overrides])
    assert is_user_error(raised.value), f"a traceback: {raised.value!r}"
    line = sentence(raised.value)
    assert "\n" not in line
    for part in parts:
        assert part in line, line
    assert list(tmp_path.iterdir()) == [], "something was written"


def test_a_home_directory_is_meant_by_outputs_as_in_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolved(["outputs=~/x"]).outputs == tmp_path / "x"


def test_a_sweep_below_the_home_directory_makes_no_folder_named_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    done = lgap_bench("run", "-m", "dry=true", "seed=0", "outputs=~/x", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "~").exists()


def test_a_working_directory_per_job_is_refused(tmp_path):
    done = lgap_bench("run", "hydra.job.chdir=true", f"outputs={tmp_path}/out")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "hydra.job.chdir=true" in line
    assert not (tmp_path / "out").exists()


def test_a_group_set_to_null_is_named_by_the_command_too():
    done = lgap_bench("run", "purifier=null")
    assert done.returncode == 1
    assert done.stderr.startswith("lgap-bench: purifier=null chooses nothing: use purifier=none")


def test_ones_own_package_may_hold_parts():
    cell = resolved(["purifier._target_=my_defenses.rounding.Round"])
    assert cell.purifier["_target_"] == "my_defenses.rounding.Round"


def test_an_unused_captioner_may_stay_open():
    assert resolved(["captioner=given", "purifier=none", "attack=pgd"]).names.captioner is None


def test_the_widest_budgets_and_all_cores_are_allowed(tmp_path):
    from lgap_bench.cell.check import check

    check(resolved([L2, "threat.eps=55.3", f"threads={os.cpu_count()}"]))
    check(resolved([L2, "threat.eps=55.4", "attack=cw", "view=bpda"]))
    check(resolved(["threat.eps=1"]))


def test_a_full_disk_says_so_names_the_file_and_leaves_no_part_of_it(tmp_path):
    def save(stream):
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"content")

    with pytest.raises(OSError, match="No space left") as raised:
        files.write(tmp_path / "00000.npz", save)
    assert raised.value.errno == errno.ENOSPC
    line = sentence(raised.value)
    assert line.startswith(f"lgap-bench: disk full: {tmp_path / '00000.npz'} could not be written")
    assert "the same call resumes" in line
    assert list(tmp_path.iterdir()) == []


def test_a_cell_that_fails_before_its_first_chunk_leaves_no_record(tmp_path):
    """The captions are read when the parts are built, the missing one is met in the first chunk."""
    (tmp_path / "captions.json").write_text('{"0": "a photo"}')
    with pytest.raises(ValueError, match="has no caption for sample"):
        run(
            [
                f"outputs={tmp_path}/out",
                "captioner=given",
                f"captioner.file={tmp_path}/captions.json",
                "n=2",
                "threads=1",
            ]
        )
    assert not (tmp_path / "out" / "records").exists()
