"""Named subsets: the images that the papers evaluated, by index and hash, at paper scale; nothing of it in miniature."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.datasets
import yaml

from lgap_bench import CONF
from lgap_bench.captioner.text import Oracle
from lgap_bench.cell.check import check
from lgap_bench.cell.compose import composed
from lgap_bench.cell.config import resolve
from lgap_bench.cell.dry import dry
from lgap_bench.cell.identity import at_split, stage_identity
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.dataset.cifar import TEST_IDS
from lgap_bench.dataset.subset import entries, sample_ids
from lgap_bench.noise import streams

# name -> entries, distinct images, first and last indices, SHA-256 of the indices: a change of any is another subset.
FACTS = {
    "coup_512": (512, 512, [9394, 898, 2398, 5906, 2343, 8225, 5506, 6451, 2670, 3497], [9213, 3566, 4539],
                 "9f2d825bd138e352da682a5e8210a957618713d394c3170593c7e1697992483b"),
    "diffpure_8x64": (512, 504, [9394, 898, 2398, 5906, 2343, 8225, 5506, 6451, 2670, 3497], [5548, 65, 2417],
                      "60d43c34f31fdd6249b0bc91a32c016e5f2ffffdd08eb0c8bf89e928620ecbd1"),
    "salt_pepper_500": (500, 500, [9394, 898, 2398], [], "a13d59d2f68be32856bc45edbbebc4a82d8341cee640f73044f6561871578f76"),
}  # fmt: skip


def held(name):
    return yaml.safe_load((CONF / "subset" / "cifar10" / f"{name}.yaml").read_text())


def cell(*overrides):
    cfg = composed(overrides)
    return resolve(cfg, cfg.hydra.runtime.choices)


def cifar10(name, *overrides):
    return cell("dataset=cifar10", f"subset=cifar10/{name}", "purifier=none", "attack=none", *overrides)


@pytest.fixture
def official(monkeypatch):
    """CIFAR's 10,000 test images, every one with its own number in its first two bytes."""
    data = np.zeros((10_000, 32, 32, 3), dtype=np.uint8)
    data[:, 0, 0, 0], data[:, 0, 0, 1] = np.divmod(np.arange(10_000), 256)
    source = SimpleNamespace(data=data, targets=(np.arange(10_000) % 10).tolist())
    for name in ("CIFAR10", "CIFAR100"):
        monkeypatch.setattr(torchvision.datasets, name, lambda root, train, download: source)


def numbers(images):
    """The official index of each image of the fixture."""
    first = (images[:, :2, 0, 0] * 255).round().long()
    return (256 * first[:, 0] + first[:, 1]).tolist()


@pytest.mark.parametrize("name", FACTS)
def test_a_subset_is_the_papers_images_in_their_order(name):
    count, distinct, first, last, digest = FACTS[name]
    index = entries(**held(name)["subset"])
    assert index.dtype == np.int64
    assert (len(index), len(set(index.tolist()))) == (count, distinct)
    assert index[: len(first)].tolist() == first
    assert index[len(index) - len(last) :].tolist() == last
    assert hashlib.sha256(index.astype("<i8").tobytes()).hexdigest() == digest == held(name)["subset"]["sha256"]
    assert held(name)["_about_"]["evaluated"] == held(name)["_about_"]["sizes"]["test"] == count
    assert held(name)["subset"]["name"] == name


def test_every_subset_has_its_facts_here_and_stands_at_every_scale():
    for dataset in ("cifar10", "cifar100", "digits"):
        assert {file.stem for file in (CONF / "subset" / dataset).glob("*.yaml")} == set(FACTS)


def test_the_two_sets_of_512_are_not_the_same_images():
    coup, diffpure, few = (entries(**held(name)["subset"]).tolist() for name in FACTS)
    assert len(set(coup) & set(diffpure)) == 81
    assert coup[:64] == diffpure[:64], "data seed 0 begins both"
    assert few == coup[:500]


def test_an_image_that_stands_twice_is_two_samples_with_noise_of_their_own():
    index = entries(**held("diffpure_8x64")["subset"])
    ids = sample_ids(index)
    assert len(set(ids.tolist())) == 512
    assert (ids % 10_000 == index).all(), "the id says which image it is"
    twice = [image for image in set(index.tolist()) if (index == image).sum() == 2]
    assert len(twice) == 8
    rows = np.flatnonzero(index == twice[0])
    one, other = streams(0, ids[rows])["score"].draws().normal(torch.zeros(2, 4), "x")
    assert not torch.equal(one, other)
    assert sample_ids(np.array([3, 7, 3, 3])).tolist() == [3, 7, 10_003, 20_003]


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_the_loader_hands_out_these_images(name, dataset, official):
    train = ["train=cifar100/adp"] if dataset == "cifar100" else []
    composed = cell(f"dataset={dataset}", f"subset={dataset}/{name}", "purifier=none", "attack=none", *train)
    check(composed)
    data, index = instantiate(composed.dataset), entries(**held(name)["subset"])
    assert composed.n == len(data) == FACTS[name][0]
    assert numbers(data.images) == index.tolist()
    assert data.labels.tolist() == (index % 10).tolist()
    assert data.ids.tolist() == (TEST_IDS + sample_ids(index)).tolist()


def test_without_a_subset_the_test_images_and_their_ids_are_what_they_were(official):
    data = instantiate(cell("dataset=cifar10").dataset)
    assert numbers(data.images) == list(range(10_000))
    assert data.ids.tolist() == list(range(TEST_IDS, TEST_IDS + 10_000))


def test_a_caption_source_that_reads_labels_knows_every_entry(official):
    composed = cifar10("diffpure_8x64")
    data = instantiate(composed.dataset)
    oracle = Oracle(data)
    noise = streams(0, data.ids.tolist())["score"].draws()
    assert oracle(data.images, noise) == [data.true_caption(label) for label in data.labels.tolist()]


def test_name_and_hash_stand_in_the_config_and_a_subset_never_retrains_a_classifier():
    plain, coup = cell("dataset=cifar10", "classifier=cifar10/scratch", "train=cifar10/adp"), cell(
        "dataset=cifar10", "classifier=cifar10/scratch", "train=cifar10/adp", "subset=cifar10/coup_512"
    )  # fmt: skip
    assert coup.dataset["subset"]["name"] == "coup_512"
    assert coup.dataset["subset"]["sha256"] == FACTS["coup_512"][-1]
    assert coup.names.subset == "cifar10/coup_512"
    assert plain.dataset["subset"] is None
    assert stage_identity(plain, "train", "cpu") == stage_identity(coup, "train", "cpu")
    turned = at_split({"captioner": {"dataset": coup.dataset}}, "train")["captioner"]["dataset"]
    assert (turned["split"], turned["subset"]) == ("train", None)


EXPERIMENT = """# @package _global_
# A row on the papers' 512 images.
defaults:
  - override /dataset: cifar10
  - override /subset: ${dataset}/coup_512
  - override /purifier: none
  - override /attack: pgd
"""


def test_an_experiment_names_its_subset_by_role_and_the_miniature_has_none(tmp_path):
    (tmp_path / "experiment" / "mine").mkdir(parents=True)
    (tmp_path / "experiment" / "mine" / "row.yaml").write_text(EXPERIMENT)
    common = ["experiment=mine/row", f"hydra.searchpath=[file://{tmp_path}]"]
    paper, miniature = cell(*common), cell(*common, "dataset=digits")
    assert "n = 512" in dry(paper)
    assert paper.dataset["subset"]["name"] == "coup_512"
    assert "missing here: nothing" in dry(miniature)
    held, plain = miniature.dataset, cell().dataset
    assert {**held, "_about_": {**held["_about_"], "evaluated": 64}} == plain, (
        "the miniature's images and its identity stay"
    )
    assert miniature.n == held["_about_"]["evaluated"] == 32, "only how many of them a row of COUP's takes is its own"


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["dataset=digits", "subset=cifar10/coup_512"], "subset=cifar10/coup_512 with dataset=digits: .*or none"),
        (["dataset=cifar10", "subset=digits/coup_512"], "subset=digits/coup_512 with dataset=cifar10"),
        (["dataset=imagenet", "subset=cifar10/coup_512"], "subset=cifar10/coup_512 with dataset=imagenet"),
        (["dataset=cifar10", "subset=cifar10/coup_512", "dataset.split=validation"], "dataset.split=validation with"),
        (["dataset=cifar10", "subset=cifar10/coup_512", "n=513"], "n=513 is more than .*512 images"),
        (["dataset=cifar10", "subset=cifar10/coup_512", "dataset.subset.seeds=[1]"], "coup_512: SHA-256 .*9f2d825b"),
        (["dataset=cifar10", "subset=cifar10/coup_512", "dataset.subset.each=10001"], "each=10001 is more than the 10000"),
    ],
)  # fmt: skip
def test_a_subset_that_is_not_the_one_it_is_called_is_refused_in_one_line(overrides, words):
    with pytest.raises(ValueError, match=words) as caught:
        check(cell(*overrides))
    assert "\n" not in str(caught.value)
