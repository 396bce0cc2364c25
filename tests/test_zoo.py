"""The miniature's models are what their cards say, and their training resumes to the same weights."""

import json
import re

import diffusers
import pytest
import torch
from torch import nn
from transformers import CLIPModel

from lgap_bench.dataset.digits import INK_TERCILES, digits, split_indices
from lgap_bench.dataset.scenes import scenes
from lgap_bench.runtime.pretrained import pretrained
from lgap_bench.runtime.weights import ZOO, manifest, sha256
from lgap_bench.zoo import figures as digit_figures
from lgap_bench.zoo import scene_figures
from lgap_bench.zoo.fit import fit

SETS = ("digits", "scenes")
MEASURE = {
    "digits": lambda: digit_figures.measure(digits("test")),
    "scenes": lambda: scene_figures.measure(scenes("test")),
}


@pytest.mark.parametrize("kind", SETS)
def test_the_cards_figures_are_measured_again(kind):
    measured = MEASURE[kind]()
    published = json.loads((ZOO / kind / "figures.json").read_text())
    assert measured.keys() == published.keys()
    for component, figures in published.items():
        for name, value in figures.items():
            # Another CPU rounds differently: one image in a thousand, one unit of the last digit of an error.
            tolerance = 0.2 if "%" in name or "dB" in name else 0.002
            assert measured[component][name] == pytest.approx(value, abs=tolerance), f"{component}: {name}"


@pytest.mark.parametrize("kind", SETS)
def test_every_component_has_a_card_that_names_data_licence_recipe_and_figures(kind):
    for name, figures in json.loads((ZOO / kind / "figures.json").read_text()).items():
        card = (ZOO / kind / name / "README.md").read_text()
        for word in ("MNIST", "CC BY-SA 3.0", "seeds fixed", *figures):
            assert word in card, f"{name} lacks {word}"
        for value in figures.values():
            assert re.search(rf"\| {re.escape(str(value))} \|", card), f"{name}: {value}"


def test_the_manifest_lists_every_weight_file_as_it_is_and_all_are_small():
    files = {file.relative_to(ZOO).as_posix(): file for file in ZOO.rglob("*.safetensors")}
    assert manifest() == {name: sha256(file) for name, file in files.items()}
    for kind, most in (("digits", 12e6), ("scenes", 8e6)):
        assert sum(file.stat().st_size for file in (ZOO / kind).rglob("*") if file.is_file()) < most


def test_halves_on_disk_are_whole_numbers_in_memory():
    for part, name in (("latent/unet", "UNet2DConditionModel"), ("latent/vae", "AutoencoderKL")):
        model = pretrained(getattr(diffusers, name), ZOO / "scenes" / part, part)
        assert {value.dtype for value in model.parameters()} == {torch.float32}
    model = pretrained(CLIPModel, ZOO / "scenes" / "clip", "clip")
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_the_split_is_fixed_disjoint_and_balanced():
    parts = {name: split_indices(name) for name in ("train", "validation", "test")}
    joined = torch.cat([torch.from_numpy(part) for part in parts.values()])
    assert sorted(joined.tolist()) == list(range(5000))
    assert [len(parts[name]) for name in parts] == [3500, 500, 1000]
    assert parts["test"][:5].tolist() == FIRST_TEST_IDS
    for name in parts:
        assert digits(name).labels.bincount().unique().numel() == 1


FIRST_TEST_IDS = [2943, 4354, 3846, 2765, 3560]


def test_ink_terciles_are_those_of_the_training_images():
    ink = digits("train").images.mean(dim=(1, 2, 3))
    assert torch.quantile(ink, torch.tensor([1 / 3, 2 / 3])).tolist() == pytest.approx(INK_TERCILES, abs=1e-4)


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    data = digits("validation")

    def train(work, stop_after=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        calls = 0

        def loss(batch):
            nonlocal calls
            calls += 1
            if stop_after is not None and calls > stop_after:
                raise KeyboardInterrupt
            noise = torch.randn(batch.images.shape, generator=batch.generator)
            return nn.functional.cross_entropy(model(batch.images + 0.1 * noise), batch.labels)

        fit("toy", [model], loss, data, work, steps=12, batch_size=8, ema=0.9)
        return model[1].weight.detach().clone()

    whole = train(tmp_path / "a")
    monkeypatch.setattr("lgap_bench.zoo.fit.SAVE_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", stop_after=7)
    assert (tmp_path / "b" / "toy.pt").exists()
    assert torch.equal(train(tmp_path / "b"), whole)
