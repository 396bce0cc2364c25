"""Pixel purifiers: the same image whatever the batch or what was drawn before; what reaches the image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pixels import noise_of, tiny
from torch import nn

from lgap_bench.build import build
from lgap_bench.cell.check import check
from lgap_bench.cell.compose import composed, resolved
from lgap_bench.defense import Defense
from lgap_bench.measure import run_cell
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.purifier.guidance import ClassifierConfidence, Distance
from lgap_bench.purifier.likelihood import LikelihoodMax
from lgap_bench.purifier.sampler import DDIM, DDPM, ProbabilityFlow, ReverseSDE
from lgap_bench.runtime.device import CPU


def make(name: str, classifier: nn.Module) -> DiffPure | LikelihoodMax:
    prior = tiny(labels="floor" if name == "floor" else "scaled")
    confidence = ClassifierConfidence(classifier)
    settings: dict[str, dict[str, Any]] = {
        "diffpure": {"sampler": ReverseSDE(0.05)},
        "floor": {"sampler": ReverseSDE(0.05)},
        "ode": {"sampler": ProbabilityFlow(0.05)},
        "ddim": {"sampler": DDIM(2)},
        "ddpm": {"sampler": DDPM(calls=2)},
        "coup": {"sampler": ReverseSDE(0.05), "forward_noise": None, "guidance": confidence},
        "gdmp mse": {"sampler": DDPM(calls=2), "guidance": Distance("mse", 60000), "rounds": 2},
        "gdmp ssim": {"sampler": DDPM(calls=2), "guidance": Distance("ssim", 1000), "rounds": 2},
    }
    if name == "likelihood_max":
        return LikelihoodMax(prior, 2, guidance=confidence)
    return DiffPure(prior, t_star=0.1, **settings[name])


NAMES = ["diffpure", "floor", "ode", "ddim", "ddpm", "coup", "gdmp mse", "gdmp ssim", "likelihood_max"]


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_purified_alike_alone_and_among_others(name, batch, images, smooth):
    purifier, x, noise = make(name, smooth().double()), images(batch, 16, dtype=torch.float64), noise_of(batch)
    together = purifier(x, noise)
    assert together.shape == x.shape
    assert together.dtype == x.dtype
    assert 0 <= together.min() <= together.max() <= 1
    for i in {0, batch // 2, batch - 1}:
        alone = purifier(x[i : i + 1], noise.rows(i, i + 1))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_images_depend_on_the_noise_s_name_and_on_nothing_global(name, images, smooth):
    purifier, x = make(name, smooth().double()), images(2, 16, dtype=torch.float64)
    torch.manual_seed(0)
    first, after = purifier(x, noise_of(2)), torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1)), "purification moves the global generator"
    assert torch.equal(purifier(x, noise_of(2)), first)
    assert purifier.randomized
    assert (purifier(x, noise_of(2, seed=1)) - first).abs().max() > 1e-3


CHANGES = {
    "depth": {"t_star": 0.2},
    "no forward noise": {"forward_noise": None},
    "sampler": {"sampler": ProbabilityFlow(0.05)},
    "no brownian noise": {"sampler": ReverseSDE(0.05, noise=False)},
    "no last noise": {"sampler": ReverseSDE(0.05, last_noise=False)},
    "step": {"sampler": ReverseSDE(0.02)},
    "rounds": {"rounds": 2},
    "guidance": {"guidance": Distance("mse", 100.0)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_setting_reaches_the_purified_image(change, images):
    x, noise, settings = images(2, 16, dtype=torch.float64), noise_of(2), {"sampler": ReverseSDE(0.05), "t_star": 0.1}
    plain = DiffPure(tiny(), **settings)(x, noise)
    effect = (DiffPure(tiny(), **{**settings, **CHANGES[change]})(x, noise) - plain).abs().max().item()
    assert effect > 1e-3, f"another {change} moves the image by {effect:.1e} only"


@pytest.mark.parametrize("t_star", [0.1, 0.075])
def test_discrete_and_continuous_forward_noise_are_the_same_level_to_the_schedule_s_step(t_star, images):
    """The product of 100 or 75 factors 1 - beta against exp(-integral): they meet as the steps get short."""
    x, noise = images(2, 16, dtype=torch.float64), noise_of(2)
    both = [
        DiffPure(tiny(), DDIM(2), t_star, forward).start(2 * x - 1, noise) for forward in ("discrete", "continuous")
    ]
    difference = (both[0] - both[1]).abs().max().item()
    assert 0 < difference < 5e-3


def test_an_unknown_forward_noise_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"purifier\.forward_noise=none is not known: use discrete") as caught:
        DiffPure(tiny(), DDIM(2), 0.1, "none")
    assert "\n" not in str(caught.value)


def test_another_sampler_shares_the_networks_and_leaves_the_first_purifier_alone():
    purifier = DiffPure(tiny(), ReverseSDE(0.05), 0.1)
    other = purifier.resampled(ReverseSDE(0.1, noise=False))
    assert other.prior is purifier.prior
    assert (len(purifier.steps), len(other.steps)) == (2, 1)
    assert purifier.sampler == ReverseSDE(0.05)


@pytest.mark.parametrize("name", ["coup", "gdmp", "likelihood_max_guided"])
def test_the_same_cell_twice_is_the_same_bytes(name, tmp_path):
    """Exact gradients through the miniature; in between the global generator is somewhere else."""
    found = []
    for place in ("first", "second"):
        torch.manual_seed(len(found))
        few = ["n=2", "chunk=2", "score_draws=2", "attack.steps=1", "attack.draws=2", "attack.select_draws=1"]
        parts = [f"outputs={tmp_path / place}", f"purifier={name}", "attack=full", "attack.confirm_draws=0"]
        cfg = composed([*parts, *few])
        record = run_cell(cfg, cfg.hydra.runtime.choices)
        found.append((record.folder.name, (record.folder / "samples.parquet").read_bytes()))
    assert found[0] == found[1]


def test_guidance_asks_the_classifier_that_the_cell_trains(monkeypatch):
    """COUP on CIFAR-100 has no published classifier: the guidance must not ask an untrained network."""
    monkeypatch.setattr("lgap_bench.finetune.stage.trained", lambda cell, classifier, *_: classifier)
    chosen = ["experiment=coup/cifar100/likelihood_max_guided", "dataset=digits"]
    cell = resolved(chosen)
    check(cell)
    defense = build(cell, CPU).defense
    assert defense.purifier.guidance.classifier is defense.classifier


def test_steps_of_a_thousandth_are_not_lost_where_the_network_computes_in_bfloat16():
    x, sampler = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), ReverseSDE(1e-3, noise=False)
    exact = DiffPure(tiny().float(), sampler, 0.05, forward_noise=None)(x, noise_of(2))
    low = DiffPure(tiny().to(torch.bfloat16), sampler, 0.05, forward_noise=None)(x.to(torch.bfloat16), noise_of(2))
    moved = (exact - x).abs().mean()
    assert (low.float() - exact).abs().mean() < 0.1 * moved


@pytest.mark.parametrize("name", ["diffpure", "coup", "likelihood_max"])
def test_a_prior_of_another_size_is_met_at_its_own_and_the_image_comes_back_at_its_own(name, images, smooth):
    """DiffPure's ImageNet network is of 256 x 256, its classifiers of 224 x 224."""
    purifier, x, noise = make(name, smooth(12).double()), images(2, 12, dtype=torch.float64), noise_of(2)
    purifier.prior.size = 16
    met = []
    purifier.prior.unet.register_forward_pre_hook(lambda unet, given: met.append(tuple(given[0].shape[-2:])))
    purified = purifier(x, noise)
    assert set(met) == {(16, 16)}
    assert purified.shape == x.shape
    assert (purified - x).abs().mean() < 0.25, "the same image, not a corner of it"


@pytest.mark.parametrize("name", ["diffpure", "coup", "likelihood_max"])
def test_a_small_perturbation_reaches_a_purifier_that_computes_in_bfloat16(name, images, smooth):
    purifier = make(name, smooth()).to(torch.bfloat16)
    defense, x, noise = Defense(purifier, smooth().to(torch.bfloat16)), 0.9 * images(2, 16), noise_of(2)
    assert not torch.equal(defense.purify(x + 3e-4, noise), defense.purify(x, noise))
