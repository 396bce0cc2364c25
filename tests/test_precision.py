"""Devices, precision and rows per pass: what is asked for is what runs, what changes numbers is in the id, the rest is refused."""

import json

import pytest
import torch
import yaml
from cells import SMALL, called, only_record, resolved, run, summary

from lgap_bench import CONF
from lgap_bench.build import build
from lgap_bench.cell.identity import identity, record_id, stage_identity
from lgap_bench.cell.values import is_limit, satisfies
from lgap_bench.evaluation.diagnose import precision_probe
from lgap_bench.runtime import device as devices
from lgap_bench.runtime.device import CPU, find_device
from lgap_bench.runtime.fitting import MOST, rows_that_fit

PRESETS = sorted(path.stem for path in (CONF / "precision").glob("*.yaml"))
KEYS = ("dtype", "dtype_of", "tf32", "compile", "channels_last")


def id_of(*words):
    return record_id(identity(resolved(words), "cpu"))


def test_the_default_is_float32_and_says_nothing_new_in_the_identity():
    assert yaml.safe_load((CONF / "precision" / "float32.yaml").read_text()) == {
        "dtype": "float32", "dtype_of": "all", "tf32": False, "compile": False, "channels_last": True,
    }  # fmt: skip
    assert not {"dtype_of", "compile", "channels_last", "device_number"} & identity(resolved([]), "cpu").keys()
    assert id_of() == id_of("precision=float32") == id_of("dtype=float32", "max_rows=auto")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_another_record_and_its_keys_can_still_be_set(name):
    held = yaml.safe_load((CONF / "precision" / f"{name}.yaml").read_text())
    cell = resolved([f"precision={name}"])
    assert {key: getattr(cell, key) for key in held} == held
    assert held.keys() <= set(KEYS)
    assert (id_of(f"precision={name}") == id_of()) == (name == "float32")
    assert resolved([f"precision={name}", "dtype=float64"]).dtype == "float64"


@pytest.mark.parametrize(
    "words", [["compile=true"], ["channels_last=false"], ["dtype_of=prior"], ["dtype=float16"], ["tf32=true"]]
)
def test_what_changes_numbers_changes_the_id(words):
    assert id_of(*words) != id_of()


def test_images_to_train_on_are_others_where_the_prior_alone_is_in_half_precision():
    ids = [record_id(stage_identity(resolved(["finetune=lgap", f"precision={name}"]), "purified", "cpu"))
           for name in ("float16", "float16_release")]  # fmt: skip
    assert ids[0] != ids[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float16_release"])
@pytest.mark.parametrize("purifier", ["lgap", "coup"])
def test_a_cell_in_half_precision_runs_and_says_how_it_agrees_with_float32(tmp_path, name, purifier):
    record = run([f"purifier={purifier}", "attack=full", f"precision={name}", "n=4", "score_draws=2", "attack.steps=2",
                  "threads=1", "device=cpu", f"outputs={tmp_path}"])  # fmt: skip
    found = record.summary()
    assert 50 <= found["float32_agrees"] <= 100
    assert record.samples()["clean_margin"]


def test_in_float32_nothing_is_asked_twice(tmp_path):
    run(["purifier=none", "attack=pgd", *SMALL, f"outputs={tmp_path}"])
    assert "float32_agrees" not in summary(tmp_path)


def test_asking_for_float32_leaves_the_networks_as_they_were(digits_problem):
    parts, cell, problem = digits_problem("precision=float16_release")
    before = {name: (each.dtype, each.clone()) for name, each in parts.defense.state_dict().items()}
    assert {kind for kind, _ in before.values()} >= {torch.float16, torch.float32}
    assert precision_probe(parts, cell, problem, problem.x).keys() == {"float32_agrees"}
    after = parts.defense.state_dict()
    assert all(after[name].dtype == kind and torch.equal(after[name], value) for name, (kind, value) in before.items())


@pytest.fixture
def digits_problem():
    """A cell's parts, and its first two images as a problem."""
    from lgap_bench.evaluation.loop import _problem

    def made(*words):
        cell = resolved(["purifier=lgap", "attack=bpda", "n=2", *words])
        parts = build(cell, CPU)
        return parts, cell, _problem(parts, cell, slice(0, 2), CPU)

    return made


def test_the_release_has_the_diffusion_model_alone_in_float16(digits_problem):
    parts, _, problem = digits_problem("precision=float16_release")
    kinds = {name: {each.dtype for each in part.parameters()} for name, part in (
        ("prior", parts.defense.purifier.prior), ("captioner", parts.defense.purifier.captioner), ("classifier", parts.defense.classifier))}  # fmt: skip
    assert kinds == {"prior": {torch.float16}, "captioner": {torch.float32}, "classifier": {torch.float32}}
    logits = parts.view.query(problem.x, problem.stream("score").draws(1))
    assert logits.dtype == torch.float32


def test_the_memory_layout_is_the_one_asked_for(digits_problem):
    for words, laid in ((["channels_last=true"], True), (["channels_last=false"], False)):
        weight = digits_problem(*words)[0].defense.purifier.prior.unet.conv_in.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == laid


@pytest.mark.slow
def test_compiled_networks_give_the_same_logits_within_rounding(digits_problem):
    plain, compiled = (digits_problem(f"precision={name}") for name in ("float32", "compiled"))
    noise = plain[2].stream("score").draws(1)
    assert compiled[0].defense.classifier._compiled_call_impl is not None
    a, b = (parts.view.query(problem.x, noise) for parts, _, problem in (plain, compiled))
    assert torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("words, said", [
    (["device=cuda:x"], "device=cuda:x is not in auto | cpu | cuda | cuda:N | mps"),
    (["device=gpu"], "device=gpu is not in"),
    (["dtype=half"], "dtype=half is not in float32 | bfloat16 | float16 | float64"),
    (["precision=fp16"], "conf/precision has"),
    (["max_rows=many"], "max_rows=many is not in int [1, inf) or auto"),
    (["dtype_of=prior", "purifier=none", "attack=pgd"], "dtype_of=prior with purifier=none, which has no prior"),
    (["device=mps", "dtype=float64"], "dtype=float64 with device=mps"),
    (["max_rows=auto", "purifier.as_released=true"], "max_rows=auto with purifier.as_released=true"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(tmp_path, words, said):
    answered = called("run", *words, f"outputs={tmp_path}")
    assert answered.returncode == 1
    assert said in answered.stderr
    assert answered.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_named(name):
    with pytest.raises(ValueError, match=f"device={name} but no CUDA device is available: use device=cpu"):
        find_device(name)


def test_a_gpu_of_a_number_that_is_not_there_is_named_with_how_many_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number=0: f"model {number}")
    assert find_device("cuda:1") == devices.Device("cuda:1", "model 1")
    assert find_device("cuda") == devices.Device("cuda", "model 0")
    with pytest.raises(ValueError, match="device=cuda:2 but this machine has 2 CUDA devices"):
        find_device("cuda:2")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has an Apple GPU")
def test_an_apple_gpu_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="device=mps but no Apple GPU is available"):
        find_device("mps")


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no Apple GPU here")
def test_a_cell_runs_on_an_apple_gpu(tmp_path):
    run(["purifier=lgap", "attack=full", *SMALL, "device=mps", f"outputs={tmp_path}"])


def test_rows_are_the_largest_power_of_two_that_fits():
    def peak(rows):  # 100 bytes whatever the batch, 10 per row
        return 100 + 10 * rows

    assert rows_that_fit(peak, 10_000) == 512  # 0.85 * 10,000 = 8,500 hold 840 rows
    assert 100 + 10 * 512 <= 0.85 * 10_000 < 100 + 10 * 1024
    assert rows_that_fit(peak, 50) == 1, "less than a row: the pass itself says that memory runs out"
    assert rows_that_fit(lambda rows: 7, 10_000) == MOST


def test_rows_asked_of_no_gpu_are_the_presets_and_stand_in_the_record(tmp_path):
    run(["purifier=none", "attack=pgd", *SMALL, "max_rows=auto", "device=cpu", f"outputs={tmp_path}"])
    held = yaml.safe_load((only_record(tmp_path) / "config.yaml").read_text())
    assert held["max_rows"] == resolved(["purifier=none", "attack=pgd"]).max_rows
    assert isinstance(held["max_rows"], int)


def test_what_a_gpu_was_found_to_hold_stands_in_the_config_that_is_kept():
    cell = resolved(["max_rows=auto"])
    assert cell.auto_rows
    sized = cell.with_rows(64)
    assert sized.max_rows == 64
    assert sized.plain()["max_rows"] == 64
    assert record_id(identity(sized, "cpu")) == record_id(identity(cell, "cpu")), "how rows are split is rounding alone"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_rows_are_measured_on_a_gpu_and_written_down(tmp_path):
    run(["purifier=lgap", "attack=full", *SMALL, "max_rows=auto", "device=cuda", f"outputs={tmp_path}"])
    rows = yaml.safe_load((only_record(tmp_path) / "config.yaml").read_text())["max_rows"]
    assert rows & (rows - 1) == 0


@pytest.mark.parametrize("value, limit, held", [
    ("cuda:1", "auto | cuda:N", True), ("cuda:12", "auto | cuda:N", True), ("cuda:", "auto | cuda:N", False), ("cpu:1", "auto | cuda:N", False),
    ("auto", "int [1, inf) or auto", True), (3, "int [1, inf) or auto", True), (None, "int [1, inf) or auto", False), ("autos", "int [1, inf) or auto", False),
])  # fmt: skip
def test_limits_know_numbered_words_and_auto(value, limit, held):
    assert is_limit(limit)
    assert satisfies(value, limit) == held
    assert json.dumps(limit)
