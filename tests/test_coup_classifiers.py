"""The classifiers of COUP's tables: their names in RobustBench, their twins in miniature, and DiffPure's own network."""

import pytest
import torch
import yaml

from lgap_bench import CONF
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.dry import dry
from lgap_bench.classifier import diffpure, robustbench
from lgap_bench.runtime import libraries

# our name -> RobustBench's name and threat model, clean accuracy there and in COUP's tables (both in percent)
ROWS = {
    "wu2020_linf": ("Wu2020Adversarial", "Linf", 85.36),
    "zhang2020_linf": ("Zhang2020Geometry", "Linf", 89.36),
    "rebuffi2021_linf": ("Rebuffi2021Fixing_28_10_cutmix_ddpm", "Linf", 87.33),
    "wu2020_extra_linf": ("Wu2020Adversarial_extra", "Linf", 88.25),
    "gowal2020_linf": ("Gowal2020Uncovering_28_10_extra", "Linf", 89.48),
    "gowal2021_linf": ("Gowal2021Improving_28_10_ddpm_100m", "Linf", 87.50),
    "rony2019_l2": ("Rony2019Decoupling", "L2", 89.05),
    "ding2020_l2": ("Ding2020MMA", "L2", 88.02),
    "wu2020_l2": ("Wu2020Adversarial", "L2", 88.51),
    "sehwag2021_l2": ("Sehwag2021Proxy", "L2", 90.31),
    "augustin2020_l2": ("Augustin2020Adversarial_34_10", "L2", 92.23),
    "rebuffi2021_l2": ("Rebuffi2021Fixing_28_10_cutmix_ddpm", "L2", 91.79),
    "wang2023_linf": ("Wang2023Better_WRN-28-10", "Linf", 92.44),
    "wang2023_l2": ("Wang2023Better_WRN-28-10", "L2", 95.16),
}
UNDEFENDED = ["purifier=none", "attack=none"]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_robustbenchs_model_and_says_its_clean_accuracy(name):
    libraries.robustbench()
    file = CONF / "classifier" / "cifar10" / f"{name}.yaml"
    held, (model, threat, clean) = yaml.safe_load(file.read_text()), ROWS[name]
    assert (held["name"], held["threat_model"], held["dataset"]) == (model, threat, "cifar10")
    assert held["file"] == f"${{checkpoints}}/robustbench/cifar10/{threat}/{model}.pt"
    assert name.endswith(f"_{threat.lower()}")
    assert model in robustbench.model_table("cifar10", threat)
    assert f"{clean:.2f} %" in file.read_text().splitlines()[0]


def test_every_classifier_of_the_papers_has_its_twin_in_miniature():
    at = {scale: {f.stem for f in (CONF / "classifier" / scale).glob("*.yaml")} for scale in ("cifar10", "digits")}
    assert at["cifar10"] <= at["digits"]
    assert set(ROWS) < at["cifar10"]


@pytest.mark.parametrize("name", ["ding2020_l2", "gowal2021_linf", "wang2023_l2", "wrn_70_16_dropout"])
def test_they_pass_a_dry_check_at_both_scales(name):
    paper = dry(resolved([*UNDEFENDED, "dataset=cifar10", f"classifier=cifar10/{name}"]))
    assert ".pt" in paper.split("missing here")[1]
    assert "missing here: nothing" in dry(resolved([*UNDEFENDED, "dataset=digits", f"classifier=digits/{name}"]))


def test_diffpures_network_has_the_papers_size():
    with torch.device("meta"):
        count = sum(weight.numel() for weight in diffpure.skeleton().parameters())
    assert count == 266_796_506


@pytest.mark.parametrize("prefix", ["", "module."])
def test_diffpures_file_is_read_with_and_without_the_name_of_its_wrapper(tmp_path, prefix):
    torch.manual_seed(0)
    model, file, x = diffpure.skeleton(10, 1).eval(), tmp_path / "weights.pt", torch.rand(3, 3, 32, 32)
    torch.save({prefix + name: value for name, value in model.model.state_dict().items()}, file)
    found = diffpure.load(str(file), depth=10, widen=1)
    torch.testing.assert_close(found(x), model(x))
    mean, std = torch.tensor(diffpure.MEAN).view(3, 1, 1), torch.tensor(diffpure.STD).view(3, 1, 1)
    torch.testing.assert_close(found(x), found.model((x - mean) / std))
    assert not found.training, "dropout must not act"


@pytest.mark.parametrize(
    "content, told",
    [
        ({}, "holds nothing and no state dictionary of a WRN-10-1 of DiffPure's release"),
        ({"conv1.weight": torch.zeros(1)}, r"is no WRN-10-1 of DiffPure's release .*state dictionary"),
        ([1, 2], "holds a list of 2 entries and no state dictionary"),
    ],
)
def test_a_file_that_is_not_diffpures_is_refused_in_one_line(tmp_path, content, told):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=told) as caught:
        diffpure.load(str(tmp_path / "weights.pt"), depth=10, widen=1)
    assert "\n" not in str(caught.value)
