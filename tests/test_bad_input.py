"""Bad input is one line that names key, value and mend, comes before torch is imported, and leaves records intact."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from cells import SMALL, called, only_record
from safetensors.torch import load_file, save_file

from lgap_bench.captioner.blip import load as load_blip
from lgap_bench.cell.values import satisfies
from lgap_bench.dataset.base import DataSet
from lgap_bench.runtime.weights import locate

ENSEMBLE = "attack=full_ensemble"
EARLY = [
    (["purifier=lgpa"], ["purifier/lgpa", "lgap"]),
    (["atack=bpda"], ["atack"]),
    (["attack.stepz=3"], ["stepz"]),
    (["threat.eps=8"], ["threat.eps=8", "(0, 1]", "8/255"]),
    (["threat.eps=-0.1"], ["threat.eps=-0.1", "(0, 1]"]),
    (["threat.eps=eight"], ["threat.eps=eight", "8/255"]),
    (["threat.norm=l7"], ["threat.norm=l7", "linf"]),
    (["purifier=none", "attack=bpda"], ["attack=bpda", "purifier=none"]),
    (["purifier=none", "attack=joint"], ["purifier=none"]),
    (["captioner=oracle", "attack=joint"], ["attack=joint", "captioner"]),
    (["purifier.strength=0"], ["purifier.strength=0", "(0, 1]"]),
    (["purifier.strength=1.5"], ["purifier.strength=1.5", "(0, 1]"]),
    (["purifier.strength=0.05"], ["purifier.strength=0.05", "no step"]),
    (["purifier.start=500"], ["purifier.strength", "purifier.start=500"]),
    (["n=1001"], ["n=1001", "digits", "1000"]),
    (["n=0"], ["n=0", "[1, inf)"]),
    (["chunk=0"], ["chunk=0", "[1, inf)"]),
    (["seed=-1"], ["seed=-1"]),
    (["attack.steps=0"], ["attack.steps=0"]),
    (["attack.step_size=fast"], ["attack.step_size=fast", "eps/4"]),
    (["classifier.weights=/nowhere"], ["/nowhere", "safetensors"]),
    (["device=tpu"], ["device=tpu", "cuda"]),
    (["dtype=Float32"], ["dtype=Float32", "float32"]),
    (["threat.eps=nan"], ["threat.eps=nan", "8/255"]),
    (["attack.step_size=nan"], ["attack.step_size=nan"]),
    (["seed=9223372036854775808"], ["seed=9223372036854775808"]),
    (["attack=joint", "view=blind"], ["view=blind", "attack=joint"]),
    (["captioner=given", "captioner.file=nowhere.json"], ["nowhere.json"]),
    (["attack=bpda", "attack.caption_target=nearest"], ["attack.caption_target=nearest", "attack.caption_weight=1"]),
    (["attack=caption", "attack.caption_target=far"], ["attack.caption_target=far", "nearest | unrelated"]),
    (["attack=caption_unrelated", "dataset.unrelated=null"], ["attack.caption_target=unrelated", "dataset.unrelated"]),
    (["captioner=oracle", "attack=caption_nearest"], ["attack=caption_nearest", "captioner"]),
    (["+dataset.synonyms.ten=[10]"], ["dataset.synonyms", "ten", "dataset.classes"]),
    (["clip=nowhere"], ["clip=nowhere", "save_pretrained"]),
    (["clip=embedded:digits/standard"], ["clip=embedded:digits/standard", "tokenizer"]),
    (["captioner=digits/consensus", "captioner.captioners.blip.weights=/nowhere"], ["/nowhere", "safetensors"]),
    (["captioner=digits/consensus", "captioner.scale=0"], ["captioner.scale=0", "(0, inf)"]),
    (["attack=autoattack_standard", "attack.n_iter=null"], ["attack.n_iter=null", "int [1, inf)"]),
    (["attack=autoattack_standard", "attack.version=rand"], ["attack.version=rand", "standard"]),
    ([ENSEMBLE, "attack.hidden=null"], ["attack.hidden=null", "+attack@attack.hidden.<name>=apgd_ce"]),
    ([ENSEMBLE, "attack.members=null"], ["attack.members=null", "+attack@attack.members.<name>=apgd_ce"]),
    ([ENSEMBLE, "attack.members.pgd=null"], ["attack.members.pgd=null", "+attack@attack.members.pgd=apgd_ce"]),
    ([ENSEMBLE, "+attack.members.foo={draws: 4}"], ["attack.members.foo", "+attack@attack.members.foo=apgd_ce"]),
    (
        [ENSEMBLE, "+attack@attack.members.joint=joint", "view=full", "captioner=oracle"],
        ["its joint", "attacks the captioner"],
    ),
    ([ENSEMBLE, "+attack@attack.members.cw=cw"], ["norm=linf", "its cw", "norm=l2"]),
    (["dataset.split=tests"], ["dataset.split=tests", "validation"]),
]


@pytest.mark.parametrize("overrides, parts", EARLY, ids=[" ".join(case[0]) for case in EARLY])
def test_one_line_before_anything_heavy_is_imported(torchless, tmp_path, overrides, parts):
    said = torchless.refusal("run", f"outputs={tmp_path}/out", *overrides)
    for part in parts:
        assert part in said


@pytest.mark.parametrize("overrides, parts", [EARLY[0], EARLY[3], EARLY[-1]], ids=["choice", "range", "split"])
def test_a_fresh_process_refuses_before_anything_heavy_is_imported(tmp_path, overrides, parts):
    code = (
        "import sys; from lgap_bench.cli import main\n"
        f"sys.argv = ['lgap-bench', 'run', 'outputs={tmp_path}/out', *{overrides!r}]\n"
        "try: main()\n"
        "finally: print('HEAVY', [m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout.strip() == "HEAVY []", "refused only after importing the models' libraries"
    for part in parts:
        assert part in done.stderr


def test_an_unknown_command_names_the_known_ones():
    done = called("rnu")
    assert done.returncode == 2
    assert "use run, tables, plan, fetch, status, report, sync, verify, pack, robustbench, eval, demo" in done.stderr


def test_help_imports_nothing_heavy():
    code = "import sys; from lgap_bench.cli import main\nsys.argv = ['lgap-bench', 'run', '--help']\ntry: main()\nfinally: print('HEAVY', 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "HEAVY False" in done.stdout
    assert "purifier" in done.stdout


def test_read_only_outputs_are_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")  # also refuses root, whom permissions do not stop
    done = called("run", f"outputs={blocked}/out", *SMALL)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "outputs=" in done.stderr


@pytest.fixture
def weights(tmp_path):
    """A copy of the standard classifier's folder."""
    source, copy = locate("embedded:digits/standard"), tmp_path / "weights"
    copy.mkdir()
    for file in source.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_cut_off_weights_are_refused(weights, tmp_path):
    file = weights / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    done = called("run", f"outputs={tmp_path}/out", f"classifier.weights={weights}", *SMALL)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "damaged" in done.stderr


def test_weights_that_lack_tensors_are_not_filled_with_random_ones(tmp_path):
    source, copy = locate("embedded:digits/blip"), tmp_path / "blip"
    copy.mkdir()
    for file in source.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    tensors = load_file(copy / "model.safetensors")
    gone = [name for name in tensors if "vision_model.encoder.layers.0" in name]
    save_file({name: t for name, t in tensors.items() if name not in gone}, copy / "model.safetensors")
    with pytest.raises(ValueError, match=f"lacks {len(gone)} tensors"):
        load_blip(str(copy))


def test_weights_of_another_model_are_refused_in_one_line(tmp_path):
    call = ("run", f"outputs={tmp_path}/out", "classifier.weights=embedded:digits/blip", "purifier=none", "attack=pgd")
    done = called(*call)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "is no WideResNet" in done.stderr


def test_nan_weights_are_refused_by_tensor_name(weights, tmp_path):
    tensors = load_file(weights / "model.safetensors")
    tensors["head.weight"][0, 0] = torch.nan
    save_file(tensors, weights / "model.safetensors")
    done = called("run", f"outputs={tmp_path}/out", f"classifier.weights={weights}", *SMALL)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "head.weight" in done.stderr
    assert "NaN" in done.stderr


def test_damaged_records_are_refused_and_others_stay(tmp_path):
    call = ("run", f"outputs={tmp_path}/out", "purifier=none", "attack=pgd", *SMALL)
    assert called(*call).returncode == 0
    samples = only_record(tmp_path / "out") / "samples.parquet"
    whole = samples.read_bytes()
    samples.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = called(*call)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "damaged" in done.stderr
    assert "delete" in done.stderr
    samples.write_bytes(whole)
    assert called(*call).returncode == 0


def test_a_label_out_of_range_is_named():
    images = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"label 10 of image 7 is not in \[0, 9\]"):
        DataSet("toy", "test", images, torch.tensor([1, 10]), torch.tensor([3, 7]), tuple("abcdefghij"), "{label}")


@pytest.mark.parametrize(
    "value, limit, obeys",
    [
        (1, "int [1, inf)", True),
        (1.0, "int [1, inf)", False),
        (True, "int [1, inf)", False),
        (0, "(0, 1]", False),
        (1, "(0, 1]", True),
        (np.nan, "(0, 1]", False),
        (None, "(0, 1] or null", True),
        (None, "(0, 1]", False),
        ("linf", "linf | l2", True),
        ("lin", "linf | l2", False),
        ("LINF", "linf | l2", False),
        (True, "true | false", True),
        ("yes", "true | false", False),
        ("0.5", "(0, 1]", False),
    ],
)
def test_limits_mean_what_they_say(value, limit, obeys):
    assert satisfies(value, limit) is obeys
