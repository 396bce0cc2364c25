"""What is optional is optional: the core works without it, and where it is needed the error names the command that brings it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from lgap_bench.runtime import libraries

# A fresh process in which none of the extras can be imported, as after `pip install lgap-bench`.
HIDDEN = """
import importlib.abc, sys
NAMES = {"torchattacks", "robustbench", "pkg_resources", "wandb", "mlxtend", "torchsde", "torchdiffeq", "submitit", "timm"}
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in NAMES else find(name, package)
from lgap_bench import cli
sys.argv = ["lgap-bench", *sys.argv[1:]]
cli.main()
"""
SMALL = ["n=2", "score_draws=2", "threads=1", "device=cpu"]


def core(folder, *words):
    command = [sys.executable, "-c", HIDDEN, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


@pytest.mark.parametrize("words", [
    ["purifier=lgap", "attack=bpda", "attack.steps=2"],
    ["purifier=none", "attack=deepfool", "threat=digits/l2"],
    ["purifier=none", "attack=cw", "threat=digits/l2", "attack.search=1", "attack.steps=2"],
    ["purifier=none", "attack=full_ensemble", "attack.members.apgd_ce.n_iter=2", "attack.members.pgd.steps=2",
     "attack.members.apgd_t.n_iter=2", "attack.outside.square.n_queries=3", "attack.outside.blind.steps=2"],
    ["purifier=none", "attack=autoattack_standard", "attack.n_iter=2", "attack.n_queries=3"],
])  # fmt: skip
@pytest.mark.slow
def test_the_core_measures_without_any_extra(tmp_path, words):
    done = core(tmp_path, "run", *words, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "natural" in done.stdout


@pytest.mark.parametrize("words, said", [
    (["run", "attack=eotpgd"], "attack=eotpgd needs torchattacks: pip install 'lgap-bench[torchattacks]'"),
    (["run", "attack=cw_torchattacks_c1", "threat=digits/l2"], "pip install 'lgap-bench[torchattacks]'"),
    (["run", "attack=square", "threat=digits/l2"], "attack=square with norm=l2 needs torchattacks"),
    (["run", "attack=full_ensemble", "threat=digits/l2"], "(its square) with norm=l2 needs torchattacks"),
    (["run", "purifier=coup", "attack=adjoint"], "view=adjoint needs torchsde: pip install 'lgap-bench[adjoint]'"),
    (["run", "logger=wandb"], "logger.wandb: logger=wandb needs wandb: pip install 'lgap-bench[wandb]'"),
    (["sync"], "lgap-bench sync needs wandb: pip install 'lgap-bench[wandb]'"),
])  # fmt: skip
def test_a_missing_extra_is_named_in_one_line_before_anything_is_written(tmp_path, words, said):
    done = core(tmp_path, *words)
    assert done.returncode == 1, done.stdout
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_classifier_of_robustbench_without_it_names_the_extra(monkeypatch):
    monkeypatch.setattr(libraries, "there", lambda name: name != "robustbench")
    with pytest.raises(ValueError, match=r"needs robustbench: pip install 'lgap-bench\[robustbench\]'"):
        libraries.robustbench()
    monkeypatch.setattr(libraries, "there", lambda name: name != "pkg_resources")
    with pytest.raises(ValueError, match=r"setuptools 81 removed: pip install 'lgap-bench\[robustbench\]'"):
        libraries.robustbench()


def test_a_folder_of_a_packages_name_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "some_optional_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not libraries.there("some_optional_package")
    assert libraries.there("torch")


def test_the_core_pins_no_neighbour_and_all_brings_every_extra():
    held = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    core_ = [Requirement(line) for line in held["dependencies"]]
    extras = held["optional-dependencies"]
    (all_,) = map(Requirement, extras["all"])
    assert all_.extras == set(extras) - {"all", "dev"}
    assert "lgap-bench[all]" in extras["dev"], "what `make install` and `make lock` take"
    bounded = [str(each) for each in core_ if any(part.operator not in (">=", "!=") for part in each.specifier)]
    assert bounded == [], "an upper bound in the core pins somebody's neighbour"
    assert not {each.name for each in core_} & {
        "torchattacks",
        "robustbench",
        "wandb",
        "setuptools",
        "requests",
        "mlxtend",
    }


@torch.no_grad()
def test_square_in_linf_is_bitwise_the_same_by_its_authors_and_by_torchattacks():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)).eval()
    x = torch.rand(5, 3, 8, 8)
    y = model(x).argmax(1)
    found = []
    for library in (libraries.square(), libraries.torchattacks().Square):
        torch.manual_seed(3)
        search = library(model, norm="Linf", eps=0.02, n_queries=60, p_init=0.8)
        search.init_hyperparam(x)
        found.append(search.attack_single_run(x, y)[1])
    assert torch.equal(*found)
    assert 0 < (model(found[0]).argmax(1) != y).sum() < 5, (
        "some fall on the way and some do not, or the end is not compared"
    )
