"""Every config composes, at every choice of every group, and what YAML calls exists."""

from pathlib import Path

import pytest
from hydra.utils import get_method
from omegaconf import OmegaConf

from lgap_bench import CONF
from lgap_bench.cell.check import check
from lgap_bench.cell.compose import resolved

FILES = sorted(
    p.relative_to(CONF).with_suffix("")
    for p in Path(CONF).rglob("*.yaml")
    if p.name not in ("config.yaml", "sources.yaml")
)
# A table is no group: it is the report's. So is the list of sources: it is fetch's. Hydra's own groups build no part of a cell: tests/test_sweep.py has them.
GROUPS = [file for file in FILES if file.parts[0] not in ("table", "hydra")]
# Choices that make no sense beside the default cell (LGAP under BPDA) stand here with what they need.
COMPANIONS = {"purifier/none": ["attack=pgd"], "purifier/downsample": ["attack=pgd"], "view/none": ["attack=none"],
              "view/caption": ["attack=caption"], "view/query": ["attack=square"],
              "view/surrogate": ["purifier=diffpure"], "view/adjoint": ["purifier=diffpure"], "view/detached": ["purifier=coup"],
              "attack/surrogate": ["purifier=coup"], "attack/adjoint": ["purifier=coup"], "attack/full_detached": ["purifier=coup"],
              "attack/cw": ["threat=digits/l2"], "attack/cw_torchattacks_c1": ["threat=digits/l2"],
              "attack/cw_torchattacks_c1_long": ["threat=digits/l2"],
              "attack/deepfool": ["threat=digits/l2"], "captioner/given": [f"captioner.file={__file__}"], "attack/given": [f"attack.file={__file__}"],
              "dataset/cifar100": ["train=cifar100/adp"], **{f"classifier/{d}": ["train=digits/adp"] for d in
              ("digits/scratch", "cifar10/scratch", "cifar100/scratch", "cifar100/standard")}, **{f"train/{d}/adp": [f"dataset={d}", f"classifier={d}/scratch"]
              for d in ("digits", "cifar10", "cifar100")}, **{f"prior/{d}/pixel": ["purifier=diffpure"] for d in
              ("digits", "scenes", "cifar10", "cifar100", "imagenet")}, **{f"subset/{d}/{s}": [f"dataset={d}", *more]
              for d, more in (("cifar10", []), ("cifar100", ["train=cifar100/adp"]))
              for s in ("coup_512", "diffpure_8x64", "salt_pepper_500")}}  # fmt: skip
COMPANIONS |= {f"prior/cifar10/{name}": ["dataset=cifar10", "purifier=coup"] for name in ("ddpm", "edm")}
COMPANIONS |= {
    f"subset/{d}/{s}": [f"dataset={d}"]
    for d in ("coco", "scenes")
    for s in ("ten", "small", "medium", "full", "evaluated", "adaptive")
}
COMPANIONS |= {
    f"attack/{a}": ["dataset=scenes", "purifier=inpaint"] for a in ("detector", "bpda_detector", "full_detector")
}
COMPANIONS |= {
    f"purifier/{p}": ["dataset=scenes"]
    for p in ("ciidefence", "inpaint", "inpaint_caption", "inpaint_outside", "inpaint_unmasked")
}
for d in ("coco", "scenes"):
    COMPANIONS |= {
        f"prior/{d}/pixel": [f"dataset={d}", "purifier=diffpure"],
        f"prior/{d}/inpaint": [f"dataset={d}", "purifier=inpaint"],
    }
    COMPANIONS[f"threat/{d}/unbounded"] = [f"dataset={d}", "attack=cw"]
COMPANIONS["view/detector"] = ["dataset=scenes", "purifier=inpaint", "attack=detector"]
COMPANIONS["view/transfer"] = ["dataset=scenes", "attack=pgd"]
# Data sets without parts of their own, with another's in their places.
BORROWED = ["classifier=digits/standard", "purifier=none", "attack=pgd"]
COMPANIONS |= {
    "dataset/images": [f"dataset.root={CONF}", *BORROWED],
    "dataset/npz": [f"dataset.file={__file__}", *BORROWED],
    "classifier/callable": ["classifier.build=torchvision.models.resnet18"],
    "classifier/state_dict": ["classifier.build=torchvision.models.resnet18", f"classifier.file={__file__}"],
    "classifier/torchvision": [f"classifier.file={__file__}"],
    "classifier/timm": ["classifier.name=resnet18", f"classifier.file={__file__}"],
    "classifier/robustbench": ["classifier.name=Standard"],
}
NESTED = ("purifier/sampler", "purifier/guidance")  # groups inside a part, which needs one that has them


def choice(file: Path) -> list[str]:
    if file.parent.as_posix() in NESTED:
        return ["purifier=gdmp", f"{file.parent.as_posix()}={file.name}"]
    group, name = file.parts[0], "/".join(file.parts[1:])
    return [f"{group}={name}", *COMPANIONS.get(file.as_posix(), [])]


def targets(node: object) -> list[str]:
    if not isinstance(node, dict):
        return []
    own = [node["_target_"]] if "_target_" in node else []
    return own + [target for child in node.values() for target in targets(child)]


@pytest.mark.parametrize("file", GROUPS, ids=lambda file: file.as_posix())
def test_every_choice_composes_passes_the_checks_and_names_code_that_exists(file):
    cell = resolved(choice(file))
    check(cell)
    found = targets(cell.plain())
    assert found
    for target in found:
        assert callable(get_method(target)), target


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.as_posix())
def test_every_file_says_what_it_is_in_its_first_lines(file):
    lines = (CONF / file).with_suffix(".yaml").read_text().splitlines()
    assert any(line.startswith("# ") and len(line) > 10 and "@package" not in line for line in lines[:3])


def test_config_keys_are_ascii_and_every_knob_of_the_main_config_has_its_reason():
    text = (CONF / "config.yaml").read_text()
    assert text.isascii()
    keys = [k for k in OmegaConf.create(text) if k not in ("defaults", "hydra", "_about_")]
    for key in keys:
        (line,) = [line for line in text.splitlines() if line.startswith(f"{key}:")]
        assert "#" in line, f"{key} has no reason beside it"
