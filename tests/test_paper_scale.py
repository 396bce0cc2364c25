"""Loaders of the papers' data sets and classifiers, on small files of the same format; the release's deviations."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from lgap_bench import CONF
from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.threat import Threat
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.identity import identity, record_id
from lgap_bench.classifier import robustbench, torchvision, wide_resnet
from lgap_bench.dataset.cifar import TEST_IDS, cifar, indices
from lgap_bench.dataset.imagenet import imagenet
from lgap_bench.metric.caption import names_label
from lgap_bench.noise import streams
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.lgap import LGAP, released_range
from lgap_bench.runtime.errors import is_user_error, sentence

TEN = tuple("abcdefghij")


@pytest.fixture
def official(tmp_path, monkeypatch):
    """CIFAR-10's files with random pixels, full size, and torchvision told their MD5."""
    from torchvision.datasets import CIFAR10

    folder, random = tmp_path / CIFAR10.base_folder, np.random.RandomState(0)
    folder.mkdir()
    pixels = random.randint(0, 256, (60_000, 3072), dtype=np.uint8)
    labels = random.randint(0, 10, 60_000)
    sums = {}
    for number, name in enumerate(
        ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
    ):
        rows = slice(10_000 * number, 10_000 * (number + 1))
        content = pickle.dumps({"data": pixels[rows], "labels": labels[rows].tolist()})
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    meta = pickle.dumps({"label_names": list(TEN)})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in sums if name != "test_batch"])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(
        CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5(meta).hexdigest()}
    )
    return tmp_path, pixels.reshape(-1, 3, 32, 32), labels


def test_cifar_splits_are_official_images_without_overlap(official):
    root, pixels, labels = official
    test = cifar(str(root), TEN, split="test")
    assert torch.equal(test.images[17], torch.from_numpy(pixels[50_017]).float() / 255)
    assert test.labels.tolist() == labels[50_000:].tolist()
    train, validation = (cifar(str(root), TEN, split=split) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (45_000, 5_000)
    ids = set(train.ids.tolist()) | set(validation.ids.tolist())
    assert ids == set(range(50_000)), "every official training image once"
    assert test.ids.min() == TEST_IDS, "no test image shares a training image's noise"
    where = int(train.ids[3])
    assert torch.equal(train.images[3], torch.from_numpy(pixels[where]).float() / 255)
    assert train.labels[3] == labels[where]
    assert indices("train").tolist() == indices("train").tolist()


def test_cifar_that_is_not_there_or_not_whole_is_one_line(official, tmp_path):
    with pytest.raises(
        ValueError, match=r"dataset.root=.*nowhere: no whole cifar-10-batches-py in .*cifar-10-python.tar.gz"
    ):
        cifar(str(tmp_path / "nowhere"), TEN)
    root, *_ = official
    file = root / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="no whole cifar-10-batches-py"):
        cifar(str(root), TEN)


def test_imagenet_takes_a_fixed_subset_resized_and_cropped(tmp_path):
    for place, name in enumerate(("n01", "n02")):
        (tmp_path / "val" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (60 + 10 * number, 50), (100 * place, 10 * number, 7)).save(
                tmp_path / "val" / name / f"{number}.png"
            )
    (tmp_path / "classes.txt").write_text("tench\ngoldfish\n")
    given = {"file": str(tmp_path / "classes.txt"), "subset": 4, "resize": 40, "crop": 32}
    data = imagenet(str(tmp_path / "val"), **given)
    assert data.images.shape == (4, 3, 32, 32)
    assert data.classes == ("tench", "goldfish")
    assert data.ids.tolist() == np.random.RandomState(0).choice(6, 4, replace=False).tolist()
    for image, label, number in zip(data.images, data.labels, data.ids, strict=True):
        expected = torch.tensor([100 * label / 255, 10 * (number % 3) / 255, 7 / 255])
        torch.testing.assert_close(image[:, 5, 5], expected.float(), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match=r"6 images in 2 class folders, and dataset\.subset=7"):
        imagenet(str(tmp_path / "val"), **{**given, "subset": 7})
    (tmp_path / "classes.txt").write_text("tench\n")
    with pytest.raises(ValueError, match=r"1 lines, and .* 2 class folders"):
        imagenet(str(tmp_path / "val"), **given)


def test_a_robustbench_checkpoint_is_loaded_by_name_and_never_downloaded(tmp_path):
    model = robustbench.skeleton("Wong2020Fast", "cifar10").eval()
    file = tmp_path / "cifar10" / "Linf" / "Wong2020Fast.pt"
    file.parent.mkdir(parents=True)
    torch.save(model.state_dict(), file)
    x = torch.rand(2, 3, 32, 32)
    loaded = robustbench.load("Wong2020Fast", "cifar10", str(file))
    torch.testing.assert_close(loaded(x), model(x))
    with pytest.raises(ValueError, match=r"is not \.\.\./cifar10/Linf/Wong2020Fast.pt"):
        robustbench.load("Wong2020Fast", "cifar10", str(tmp_path / "Wong2020Fast.pt"))
    torch.save({"state_dict": {}}, file)
    with pytest.raises(ValueError, match="is no RobustBench model Wong2020Fast"):
        robustbench.load("Wong2020Fast", "cifar10", str(file))


def test_torchvisions_resnet50_normalises_inside(tmp_path):
    model = torchvision.skeleton().eval()
    torch.save(model.model.state_dict(), tmp_path / "resnet50.pth")
    loaded = torchvision.load(str(tmp_path / "resnet50.pth"))
    x = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(loaded(x), model.model((x - mean) / std))
    torch.save({"a": torch.zeros(1)}, tmp_path / "resnet50.pth")
    with pytest.raises(ValueError, match="no torchvision ResNet-50"):
        torchvision.load(str(tmp_path / "resnet50.pth"))


def test_dropout_acts_in_training_alone():
    model = wide_resnet.WideResNet(10, 1, dropout=0.5)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.eval()(x), model(x))
    assert not torch.equal(model.train()(x), model(x))


def test_the_released_range_is_the_releases_arithmetic():
    """Written out as the release does it: normalise by channel, undo by place in the batch, encode without 2x - 1."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    x = torch.rand(5, 3, 4, 4, dtype=torch.float64)
    batch = x.clone()
    for channel in range(3):
        batch[:, channel] = (batch[:, channel] - mean[channel]) / std[channel]
    for image, m, s in zip(batch, mean, std, strict=False):
        image.mul_(s).add_(m)
    torch.testing.assert_close(2 * released_range(x) - 1, batch)  # encode maps x to 2x - 1
    assert not torch.allclose(released_range(x[3:])[0], released_range(x)[3]), "it depends on the place in the batch"


def test_as_released_changes_what_the_prior_sees_and_nothing_else(prior, images):
    x, noise = images(5, 32), streams(0, range(5))["score"].draws()
    settings = {"steps": 4, "strength": 0.5, "spacing": "trailing"}
    right, released = (LGAP(prior, None, as_released=flag, **settings)(x, noise) for flag in (False, True))
    assert released.min() >= 0
    assert released.max() <= 1
    assert not torch.allclose(right, released, atol=0.01)
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(LGAP(prior, None, as_released=True, **settings)(x, noise).sum(), x)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_vote_of_signs_follows_most_draws_and_the_mean_the_strongest(count, make_problem):
    class Lottery(Purifier):
        """Two draws in three pull gently one way, the third strongly the other way."""

        randomized = True

        def forward(self, x, noise, observed=None):
            strong = noise.uniform(x[:, :1, :1, :1], "which") < 1 / 3
            return torch.where(strong, -20 * x, x)

    class Brightness(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean((1, 2, 3)), torch.zeros(len(x))], 1)

    x, y = torch.full((count, 3, 4, 4), 0.5), torch.zeros(count, dtype=torch.long)
    problem = make_problem(Brightness(), x, y, Lottery(), threat=Threat("linf", 0.1))
    moved = {
        eot: PGD(1, 0.1, start="zero", draws=400, loss="margin", keep="last", eot=eot)(problem) - x
        for eot in ("mean", "sign_vote")
    }
    assert (moved["mean"] > 0).all(), "the mean gradient of -x0 is +: the strong third wins"
    assert (moved["sign_vote"] < 0).all(), "most draws fall when the image darkens"


@pytest.mark.parametrize("count", [1, 3])
def test_a_prompt_that_is_not_kept_is_taken_off_the_caption_and_given_to_the_loss(make_blip, images, count):
    kept, bare = make_blip("a photo of"), make_blip("a photo of")
    bare.keep_prompt = False
    x = images(count, 32)
    assert [f"a photo of {text}".strip() for text in bare(x)] == kept(x)
    truths = [f"a {word}" for word in ("handwritten one", "two", "handwritten three")][:count]
    torch.testing.assert_close(bare.loss(x, truths), kept.loss(x, [f"a photo of {text}" for text in truths]))


def test_under_a_prompt_of_its_own_the_loss_asks_about_the_class_alone(make_blip, images):
    kept, bare = make_blip("a photo of"), make_blip("a photo of")
    bare.keep_prompt, bare.instead_of = False, "in strokes"
    x = images(3, 32)
    classes = ["handwritten one", "two", "handwritten three"]
    expected = kept.loss(x, [f"a photo of {text}" for text in classes])
    torch.testing.assert_close(bare.loss(x, [f"in strokes {text}" for text in classes]), expected)


def test_a_page_that_was_saved_as_a_checkpoint_is_one_line(tmp_path):
    file = tmp_path / "cifar10" / "Linf" / "Wong2020Fast.pt"
    file.parent.mkdir(parents=True)
    file.write_text("<html>too many requests</html>")
    with pytest.raises(ValueError, match=r"is an HTML or XML page, .*download it again") as error:
        robustbench.load("Wong2020Fast", "cifar10", str(file))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="is an HTML or XML page") as error:
        torchvision.load(str(file))
    assert "\n" not in str(error.value)


def test_running_out_of_memory_is_the_users_to_mend():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB. More words.")
    assert is_user_error(error)
    assert "max_rows" in sentence(error)
    assert "\n" not in sentence(error)


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100"])
def test_the_unrelated_sentence_names_no_class(name):
    cfg = yaml.safe_load((CONF / "dataset" / "cifar10.yaml").read_text()) if name == "cifar100" else {}
    cfg |= yaml.safe_load((CONF / "dataset" / f"{name}.yaml").read_text())
    for label in range(len(cfg["classes"])):
        assert not names_label(cfg["unrelated"], label, cfg["classes"], cfg["synonyms"] or {}), cfg["classes"][label]


def test_a_defect_that_depends_on_an_images_place_in_a_pass_is_another_cell_for_other_passes():
    def id_of(*overrides: str) -> str:
        return record_id(identity(resolved(["purifier=lgap", *overrides]), "cpu"))

    released = "purifier.as_released=true"
    assert id_of(released, "max_rows=4") != id_of(released, "max_rows=8")
    assert id_of("max_rows=4") == id_of("max_rows=8")
