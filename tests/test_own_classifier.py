"""A classifier of one's own is one word on the command line; what does not fit the images is one line."""

from pathlib import Path

import pytest
import torch
from cells import SMALL, called, identified, lgap_bench, summary
from safetensors.torch import save_file
from torch import nn

from lgap_bench.cell.compose import resolved
from lgap_bench.cell.instantiate import check_signatures
from lgap_bench.classifier import callable as own
from lgap_bench.classifier import pyautoattack, robustbench, state_dict, torchvision
from lgap_bench.classifier import timm as timm_names
from lgap_bench.classifier.normalised import Normalised
from lgap_bench.classifier.wide_resnet import load as digits_network

NETS = """
import torch
from torch import nn
from lgap_bench.classifier.wide_resnet import load

WEIGHTS = "embedded:digits/standard"
ready = load(WEIGHTS)


def digits():
    return load(WEIGHTS)


def function():
    model = load(WEIGHTS)
    return lambda x: model(x)


def named(order):
    model = load(WEIGHTS)
    model.classes = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"][:: order]
    return model


def from_file(file):
    model = Tiny()
    model.load_state_dict(torch.load(file, weights_only=True))
    return model


def mean_of():
    return lambda x: x.mean((2, 3)) @ torch.ones(3, 7)


def rolled():
    model = load(WEIGHTS)
    return lambda x: model(x).roll(3, 1)


def wide():
    return lambda x: nn.functional.linear(x.flatten(1)[:, :100], torch.ones(10, 99))


def raises():
    raise KeyError("lost")


def raises_late():
    def forward(x):
        raise RuntimeError("mat1 and mat2 do not fit")
    return forward


def number():
    return 3


class Tiny(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.layer = nn.Linear(3, classes)

    def forward(self, x):
        return self.layer(x.mean((2, 3)))
"""
CELL = ["purifier=none", "attack=pgd", *SMALL]


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A package of one's own in the path of Python, under a name that no other test has met."""
    name = f"nets_{abs(hash(tmp_path)) % 10**9}"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{name}.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    return name


def refusal(call) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011 the message is looked at by the caller
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_modules_functions_and_objects_are_the_classifiers_that_they_are(nets):
    x, plain = torch.rand(3, 3, 32, 32), digits_network("embedded:digits/standard")
    for name in ("digits", "function", "ready"):
        made = own.load(f"{nets}:{name}")
        assert isinstance(made, nn.Module)
        assert not made.training
        torch.testing.assert_close(made(x), plain(x))


def test_one_word_measures_a_classifier_of_the_working_directory(tmp_path):
    """In a fresh process, since the folder that the command is called in is part of what is tested."""
    (tmp_path / "my_nets.py").write_text(NETS)
    done = lgap_bench("run", "classifier=callable", "classifier.build=my_nets.digits", *CELL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "outputs")["undefended_natural"] == 100
    again = lgap_bench("run", "classifier=callable", "classifier.build=my_nets:function", "dry=true", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_edited_code_and_other_weights_are_another_record(nets, tmp_path):
    words = ["classifier=callable", *CELL]
    first = identified([*words, f"classifier.build={nets}.digits"])["cell"]
    files = []
    for bias in (0.0, 1.0):
        torch.save({"layer.bias": torch.full((10,), bias)}, tmp_path / f"{bias}.pt")
        files.append(
            identified([*words, f"classifier.build={nets}.from_file", f"classifier.file={tmp_path}/{bias}.pt"])
        )
    assert files[0]["cell"] != files[1]["cell"]
    (tmp_path / "code" / f"{nets}.py").write_text(NETS.replace("roll(3, 1)", "roll(4, 1)"))
    assert identified([*words, f"classifier.build={nets}.digits"])["cell"] != first


BROKEN = [
    ("mean_of", "classifier=callable has 7 classes, dataset=digits has 10"),
    ("wide", "its forward raised RuntimeError"),
    ("raises", "classifier=callable: its constructor raised KeyError ('lost')"),
    ("raises_late", "its forward raised RuntimeError (mat1 and mat2 do not fit)"),
    ("number", "returns int: return an nn.Module"),
    ("nothing", "names no code"),
    ("named", "its constructor raised TypeError"),
]


@pytest.mark.parametrize("name, said", BROKEN)
def test_code_that_is_no_classifier_is_one_line_and_leaves_no_numbers(nets, tmp_path, name, said):
    words = ["classifier=callable", f"classifier.build={nets}.{name}", *CELL, f"outputs={tmp_path}/out"]
    done = called("run", *words)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert not list((tmp_path / "out").rglob("summary.json"))


@pytest.mark.parametrize("build, said", [
    ("os.system", "is no part of a cell"),
    ("resnet18", "is no code: write package.module.Name"),
    ("no_such_package.build", "names no code (no module no_such_package)"),
    ("lgap_bench.defense.nothing", "names no code"),
    ("???", "is left open: set classifier.build=..."),
])  # fmt: skip
def test_a_name_without_code_is_one_line(tmp_path, build, said):
    done = called("run", "classifier=callable", f"classifier.build={build}", *CELL, f"outputs={tmp_path}/out")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr


def test_a_package_that_lacks_another_says_which(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_not_there\n")
    (tmp_path / "ends_badly.py").write_text("raise RuntimeError('no GPU')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "imports a_package_that_is_not_there, which is not installed" in refusal(lambda: own.load("needs_more.net"))
    assert "raised RuntimeError while it was imported (no GPU)" in refusal(lambda: own.load("ends_badly.net"))


def test_a_classifier_that_names_its_logits_in_another_order_is_refused(nets, tmp_path):
    words = ["classifier=callable", f"classifier.build={nets}.named", *CELL, f"outputs={tmp_path}/out"]
    done = called("run", *words, "classifier.arguments={order: -1}")
    assert done.returncode == 1
    assert "calls class 0 'nine', and dataset.classes 'zero'" in done.stderr
    assert called("run", *words, "classifier.arguments={order: 1}").returncode == 0


def test_a_classifier_in_another_order_is_invalid_and_the_order_is_named(nets, tmp_path):
    words = ["classifier=callable", f"classifier.build={nets}.rolled", "purifier=none", "attack=pgd", "n=40",
             "attack.steps=1", f"outputs={tmp_path}/out"]  # fmt: skip
    done = called("run", *words)
    assert done.returncode == 0, done.stderr
    found = summary(tmp_path / "out")
    assert found["verdict"] == "invalid"
    (reason,) = [each["text"] for each in found["reasons"] if each["check"] == "undefended classifier"]
    assert "its logits fit the labels in another order" in reason
    assert "its 0 is seven (7)" in reason


# Weights in files


@pytest.fixture
def tiny(nets, tmp_path):
    """The dotted name of a small network, and its state dictionary."""
    torch.manual_seed(0)
    held = {"layer.weight": torch.randn(10, 3), "layer.bias": torch.randn(10)}
    return f"{nets}.Tiny", held


@pytest.mark.parametrize("form", ["bare", "nested", "parallel", "safetensors"])
def test_a_state_dictionary_is_read_in_every_form_that_training_scripts_leave(tiny, tmp_path, form):
    build, held = tiny
    file = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pt")
    if form == "safetensors":
        save_file(held, file)
    else:
        parallel = {f"module.{name}": value for name, value in held.items()}
        torch.save({"bare": held, "nested": {"state_dict": held, "epoch": 3}, "parallel": parallel}[form], file)
    made = state_dict.load(build, str(file), mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.1])
    x = torch.rand(2, 3, 8, 8)
    scaled = (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.2, 0.1]).view(3, 1, 1)
    torch.testing.assert_close(made(x), scaled.mean((2, 3)) @ held["layer.weight"].T + held["layer.bias"])


def test_weights_of_another_architecture_are_refused_by_their_first_tensor(tiny, tmp_path):
    build, held = tiny
    wrong = {
        "lacks layer.bias": {"layer.weight": held["layer.weight"]},
        "has layer.more": {**held, "layer.more": torch.zeros(1)},
        "has layer.weight of shape (10, 4) instead of (10, 3)": {**held, "layer.weight": torch.zeros(10, 4)},
        "layer.bias holds NaN or infinity": {**held, "layer.bias": torch.full((10,), torch.nan)},
    }
    for said, tensors in wrong.items():
        torch.save(tensors, tmp_path / "a.pt")
        assert said in refusal(lambda: state_dict.load(build, str(tmp_path / "a.pt")))
    (tmp_path / "a.safetensors").write_bytes(b"<html>")
    assert "is no safetensors file" in refusal(lambda: state_dict.load(build, str(tmp_path / "a.safetensors")))
    (tmp_path / "a.pt").write_bytes(b"<html>404</html>")
    assert "an HTML or XML page" in refusal(lambda: state_dict.load(build, str(tmp_path / "a.pt")))


def test_mean_and_std_stand_together(tiny):
    layer = nn.Identity()
    assert "give both" in refusal(lambda: Normalised(layer, [0.5], None))
    assert "give both" in refusal(lambda: Normalised(layer, [0.5], [0.5, 0.5]))
    assert "give both" in refusal(lambda: Normalised(layer, [0.5], [0.0]))
    assert Normalised(layer)(torch.ones(1, 3, 1, 1)).sum() == 3


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_torchvisions_networks_are_loaded_by_name_as_torchvision_makes_them(tmp_path, name):
    from torchvision import models

    torch.manual_seed(0)
    model = models.get_model(name, num_classes=7).eval()
    torch.save(model.state_dict(), tmp_path / "a.pth")
    made = torchvision.load(str(tmp_path / "a.pth"), name, classes=7)
    x = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(made(x), model((x - mean) / std))
    assert f"is no torchvision {name} (it has " in refusal(lambda: torchvision.load(str(tmp_path / "a.pth"), name))


def test_timms_networks_bring_the_normalisation_that_timm_knows(tmp_path):
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=5).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    made = timm_names.load("vit_tiny_patch16_224.augreg_in21k_ft_in1k", str(tmp_path / "model.safetensors"), classes=5)
    x = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(made(x), model((x - 0.5) / 0.5))
    wrong = refusal(lambda: timm_names.load("resnet18", str(tmp_path / "model.safetensors")))
    assert "is no timm resnet18 (it lacks conv1.weight" in wrong


@pytest.mark.parametrize("call, said", [
    (lambda: torchvision.skeleton("resnet81"), "is no classifier of torchvision: use resnet18"),
    (lambda: timm_names.skeleton("resnett18"), "is no model of timm: use resnet18"),
    (lambda: timm_names.skeleton("resnet18.no_such_tag"), "leave the tag away"),
    (lambda: robustbench.skeleton("Carmon2020Unlabeled", "cifar10"), "is no model of RobustBench on cifar10, Linf: use Carmon2019Unlabeled"),
    (lambda: robustbench.skeleton("Standard", "cifar11"), "classifier.dataset=cifar11 is not known: use cifar10, cifar100 or imagenet"),
    (lambda: robustbench.skeleton("Standard", "cifar10", "L7"), "RobustBench has no models of it on cifar10"),
])  # fmt: skip
def test_a_misspelt_name_brings_those_most_like_it(call, said):
    assert said in refusal(call)


PRESETS = [
    ("callable", ["classifier.build=torchvision.models.resnet18"]),
    ("state_dict", ["classifier.build=torchvision.models.resnet18", f"classifier.file={__file__}"]),
    ("torchvision", [f"classifier.file={__file__}", "classifier.classes=10"]),
    ("timm", ["classifier.name=resnet18", f"classifier.file={__file__}", "classifier.classes=10"]),
    ("robustbench", ["classifier.name=Wong2020Fast"]),
]


@pytest.mark.parametrize("name, words", PRESETS)
def test_every_key_of_a_preset_reaches_its_code_from_the_command_line(name, words):
    cell = resolved([f"classifier={name}", *words, "purifier=none", "attack=pgd"])
    check_signatures(cell)
    assert cell.names.classifier == name
    given = {word.partition("=")[0].removeprefix("classifier."): word.partition("=")[2] for word in words}
    assert {key: str(cell.classifier[key]) for key in given} == given
    if name == "robustbench":
        assert cell.classifier["file"].endswith("robustbench/cifar10/Linf/Wong2020Fast.pt")


# The real network with known answers


def test_the_network_that_comes_with_pyautoattack_is_the_pinned_one(monkeypatch, tmp_path):
    given = resolved(["classifier=cifar10/resnet18", "purifier=none", "attack=pgd"]).classifier["sha256"]
    model = pyautoattack.load(given)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert "pip install --force-reinstall pyautoattack" in refusal(lambda: pyautoattack.load("0" * 64))
    monkeypatch.setattr(pyautoattack, "weights", lambda: Path(tmp_path / "gone.pt"))
    assert "has SHA-256 None" in refusal(lambda: pyautoattack.load(given))


def test_two_classifiers_of_one_preset_are_told_apart_in_a_table(nets, tmp_path):
    for name in ("digits", "rolled"):
        words = ["classifier=callable", f"classifier.build={nets}.{name}", *CELL, f"outputs={tmp_path}/out"]
        assert called("run", *words).returncode == 0
    table = called("report", "--outputs", f"{tmp_path}/out")
    assert table.returncode == 0, table.stderr
    assert f"{nets}.digits" in table.stdout
    assert f"{nets}.rolled" in table.stdout


def test_the_pages_example_is_measured_as_it_stands_there(tmp_path):
    """docs/own_data.md: its module beside a folder of images, and its first command, for four images."""
    from PIL import Image
    from torchvision.models import resnet18

    page = (Path(__file__).parent.parent / "docs" / "own_data.md").read_text()
    (tmp_path / "my_defenses").mkdir()
    (tmp_path / "my_defenses" / "nets.py").write_text(page.split("```python\n")[1].split("```")[0])
    torch.save(resnet18(num_classes=10).state_dict(), tmp_path / "resnet18.pth")
    for number in range(10):
        (tmp_path / "photos" / f"class {number}").mkdir(parents=True)
        Image.new("RGB", (32, 32), (25 * number, 9, 9)).save(tmp_path / "photos" / f"class {number}" / "1.png")
    (command,) = [
        line
        for line in page.splitlines()
        if line.startswith("    lgap-bench run dataset=images dataset.root=photos cl")
    ]
    words = [word for word in command.split()[1:] if word != "run"]
    for more in ([], ["classifier.file=resnet18.pth"]):
        done = lgap_bench("run", *words, "n=4", "attack.steps=1", "threads=1", *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
