"""Training stages: resumed, shared, best by validation, divergence caught, never confused with another config's."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lgap_bench.cell.compose import composed
from lgap_bench.dataset.digits import digits
from lgap_bench.finetune.fit import fit
from lgap_bench.finetune.images import Images, purified
from lgap_bench.finetune.recipe import Recipe, augmented
from lgap_bench.measure import run_cell
from lgap_bench.purifier.controls import Downsample

QUICK = [
    "purifier=downsample",
    "attack=pgd",
    "attack.steps=1",
    "n=4",
    "chunk=4",
    "score_draws=1",
    "threads=1",
    "device=cpu",
]
FEW = ["finetune=lgap", "finetune.n=60", "finetune.epochs=2", "finetune.batch=32", "finetune.batch_size=20"]


def silent(line: str) -> None:
    """Where training reports to in these tests."""


def run(*overrides):
    cfg = composed([*QUICK, *overrides])
    return run_cell(cfg, cfg.hydra.runtime.choices)


class Toy(nn.Module):
    """A linear classifier of two mean colours."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        torch.manual_seed(0)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(x.mean((2, 3)))


def colours(count: int, seed: int) -> Images:
    """Red images are class 0, blue ones class 1, with grain."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.3 * torch.rand(count, 3, 4, 4, generator=generator)
    images[labels == 0, 0] += 0.5
    images[labels == 1, 2] += 0.5
    return Images(images.mul(255).byte()[None], labels)


def fitted(folder, model=None, **changes):
    recipe = Recipe(**{"images": "clean", "epochs": 4, "batch_size": 8, "lr": 0.05, **changes})
    model = model or Toy()
    return model, fit(model, colours(64, 1), colours(40, 2), recipe, folder, "finetune", "cpu", silent)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_separable_problem_is_learned_and_the_curve_tells_every_epoch(tmp_path, optimizer, batch_size):
    _, progress = fitted(tmp_path, optimizer=optimizer, batch_size=batch_size)
    assert progress.best_accuracy == 100
    assert [line["epoch"] for line in progress.curve] == [0, 1, 2, 3, 4]
    assert progress.curve[-1]["loss"] < progress.curve[1]["loss"]


def test_the_kept_weights_are_the_best_epochs_not_the_last(tmp_path):
    # A rate that explodes after the second epoch, without leaving the finite numbers.
    _, progress = fitted(tmp_path, optimizer="sgd", momentum=0.0, lr=0.5, milestones=(2,), factor=-400.0)
    accuracies = [line["validation"] for line in progress.curve[1:]]
    assert accuracies[-1] < max(accuracies), "the last epoch is the best: this test shows nothing"
    assert progress.best == 1 + int(np.argmax(accuracies))
    kept = Toy()
    kept.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x, y = colours(40, 2).batch(torch.arange(40), 0, "cpu")
    assert 100 * float((kept(x).argmax(1) == y).float().mean()) == progress.best_accuracy


def test_a_diverging_rate_is_named_and_the_last_good_weights_are_kept(tmp_path):
    with pytest.raises(
        ValueError, match=r"finetune\.lr=0\.5: .* in epoch 3: the weights of epoch [12] are kept in .*; lower"
    ):
        fitted(tmp_path, optimizer="sgd", lr=0.5, milestones=(2,), factor=1e30, weight_decay=0.1)
    assert all(torch.isfinite(t).all() for t in load_file(tmp_path / "model.safetensors").values())
    with pytest.raises(ValueError, match="in epoch 1: no epoch was finished"):
        fitted(tmp_path / "..", optimizer="sgd", lr=1e30, weight_decay=0.1)


def test_a_killed_training_resumes_to_the_same_weights(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    fitted(whole, epochs=4, augment="shift")
    calls = []

    class Killed(BaseException):
        pass

    def die(line):
        calls.append(line)
        if len(calls) == 2:
            raise Killed

    recipe = Recipe(images="clean", epochs=4, batch_size=8, lr=0.05, augment="shift")
    with pytest.raises(Killed):
        fit(Toy(), colours(64, 1), colours(40, 2), recipe, killed, "finetune", "cpu", die)
    assert (killed / "state.pt").exists()
    fitted(killed, epochs=4, augment="shift")
    for name, tensor in load_file(whole / "model.safetensors").items():
        assert torch.equal(tensor, load_file(killed / "model.safetensors")[name]), name


@pytest.mark.parametrize("count", [1, 3, 8])
def test_augmentation_moves_images_and_loses_none(count):
    images = torch.zeros(count, 3, 16, 16)
    images[:, :, 6:10, 6:9] = 1  # not symmetric, and far from every edge
    for kind in ("shift", "crop_flip"):
        moved = augmented(images, kind, torch.Generator().manual_seed(0))
        assert moved.shape == images.shape
        assert torch.equal(moved.sum((1, 2, 3)), images.sum((1, 2, 3)))
        assert not torch.equal(moved, images)
    assert augmented(images, "none", torch.Generator()) is images


def test_purified_images_are_the_purifiers_and_a_resume_computes_only_what_is_missing(tmp_path):
    data, asked = digits("train"), []

    class Counting(Downsample):
        def forward(self, x, noise, observed=None):
            asked.append(len(x))
            return super().forward(x, noise, observed)

    def call(n):
        return purified(data, lambda: Counting(16), tmp_path, {"purifier": 1}, n, 2, 4, 3, "cpu", silent)

    first = call(10)
    assert asked == [3, 1, 3, 1, 2] * 2, "files of 4, passes of at most 3"
    expected = Downsample(16)(data.images[:10], None).mul(255).round().byte()
    assert torch.equal(first.pixels, torch.stack([expected, expected]))
    assert torch.equal(first.labels, data.labels[:10])
    (tmp_path / "train-01-000004.npy").unlink()
    (tmp_path / "train-00-000000.npy").write_bytes(b"cut off")
    asked.clear()
    assert torch.equal(call(10).pixels, first.pixels)
    assert asked == [3, 1, 3, 1]
    asked.clear()
    purified(
        data, None, tmp_path, {"purifier": 1}, 10, 2, 4, 3, "cpu", silent
    )  # nothing is missing: no purifier is built


def test_purified_images_of_another_config_are_refused_by_name(tmp_path):
    data = digits("train")
    purified(data, lambda: Downsample(16), tmp_path, {"purifier": {"size": 16}}, 4, 1, 4, 4, "cpu", silent)
    with pytest.raises(ValueError, match=r"another config \(purifier.size differs\): delete this folder"):
        purified(data, lambda: Downsample(8), tmp_path, {"purifier": {"size": 8}}, 4, 1, 4, 4, "cpu", silent)
    (tmp_path / "identity.json").unlink()  # images that do not say how they were made
    with pytest.raises(ValueError, match=r"identity.json does not exist, so nothing says how they were made"):
        purified(data, lambda: Downsample(8), tmp_path, {"purifier": {"size": 8}}, 4, 1, 4, 4, "cpu", silent)
    with pytest.raises(ValueError, match=r"nowhere/identity.json does not exist"):
        run(f"outputs={tmp_path}/out", *FEW, f"finetune.purified={tmp_path}/nowhere")


def test_a_cell_trains_once_reuses_and_says_what_it_used(tmp_path):
    first = run(f"outputs={tmp_path}", *FEW)
    (folder,) = (tmp_path / "weights").iterdir()
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    made = json.loads((folder / "summary.json").read_text())
    assert first.summary()["stages"]["finetune"]["sha256"] == made["sha256"]
    assert {"curve.csv", "curve.png", "identity.json"} <= {file.name for file in folder.iterdir()}
    assert len((folder / "curve.csv").read_text().splitlines()) == 1 + 1 + 2
    second = run(f"outputs={tmp_path}", *FEW, "seed=1")  # the cell's seed never retrains anything
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert second.folder != first.folder
    third = run(f"outputs={tmp_path}", *FEW, "finetune.seed=1")
    assert len(list((tmp_path / "weights").iterdir())) == 2
    assert len(list((tmp_path / "purified").iterdir())) == 1, "another training seed needs no other images"
    assert third.summary()["stages"]["finetune"]["sha256"] != made["sha256"]


def test_damaged_trained_weights_are_refused(tmp_path):
    run(f"outputs={tmp_path}", *FEW)
    (file,) = tmp_path.glob("weights/*/model.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"trained weights in .* are damaged or missing: delete this folder"):
        run(f"outputs={tmp_path}", *FEW, "seed=5")


def test_training_from_scratch_starts_from_the_recipes_seed_and_not_from_the_process(tmp_path):
    few = ["classifier=digits/scratch", "train=digits/adp", "train.n=100", "train.epochs=1"]
    torch.manual_seed(1)
    a = run(f"outputs={tmp_path}/a", *few)
    torch.manual_seed(2)
    b = run(f"outputs={tmp_path}/b", *few)
    assert a.summary()["stages"]["train"]["sha256"] == b.summary()["stages"]["train"]["sha256"]


@pytest.mark.slow
def test_two_jobs_that_ask_at_once_train_once(tmp_path):
    call = [sys.executable, "-m", "lgap_bench.cli", "run", f"outputs={tmp_path}", *QUICK, *FEW, "finetune.epochs=3"]
    jobs = [subprocess.Popen([*call, f"seed={seed}"], stderr=subprocess.PIPE, text=True) for seed in (0, 1)]
    errors = [job.communicate(timeout=300)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], errors
    trained = [sum(line.startswith("finetune: epoch") for line in error.splitlines()) for error in errors]
    assert sorted(trained) == [0, 3], "both trained"
    waited = errors[trained.index(0)]
    assert waited.count("another process is at it (process ") == 1, waited
    # Which epochs it hears of depends on how busy the machine is.
    assert "finetune of digits/standard: finetune: epoch " in waited, "who waits does not hear how far it is"
    assert not (tmp_path / "locks").exists()
    assert not list(tmp_path.rglob("progress.txt"))
    assert len(list((tmp_path / "records").iterdir())) == 2


def test_weights_that_answer_nan_are_no_result(tmp_path):
    class Silent(Toy):
        def forward(self, x):
            return super().forward(x) if self.training else super().forward(x) * (torch.nan if self.broken else 1)

        broken = False

    class Breaking(Silent):
        def train(self, mode=True):
            self.broken = mode or self.broken
            return super().train(mode)

    with pytest.raises(ValueError, match="a logit is not finite in epoch 1: no epoch was finished"):
        fitted(tmp_path, model=Breaking())


def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"state.pt is damaged: delete this file"):
        fitted(tmp_path)
