"""Views whose gradient is another defense's: the surrogate, the stochastic adjoint, and an attacker blind to the guidance.

A closed-form prior (independent pixels, each Gaussian or a mixture of two) and the miniature's network with random weights.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgap_bench.attack.adjoint import Adjoint, KeyedPath
from lgap_bench.attack.detached import Detached
from lgap_bench.attack.problem import Problem, estimate
from lgap_bench.attack.stand_in import agreement
from lgap_bench.attack.surrogate import Surrogate
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import Full
from lgap_bench.cell.check import check, require_files
from lgap_bench.cell.compose import composed, resolved
from lgap_bench.cell.identity import identity
from lgap_bench.defense import Defense
from lgap_bench.measure import run_cell
from lgap_bench.noise import streams
from lgap_bench.prior import schedule
from lgap_bench.prior.pixel import PixelPrior
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.purifier.guidance import ClassifierConfidence, Distance, Guidance
from lgap_bench.purifier.sampler import DDIM, ProbabilityFlow, ReverseSDE
from lgap_bench.report.screen import one_screen
from lgap_bench.task import loss as losses

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
SIDE = 16


class Known(nn.Module):
    """The noise in x_t where pixel i is N(+-mean, std_i^2): linear in x_t for mean 0."""

    def __init__(self, mean: float = 0.0) -> None:
        super().__init__()
        self.config = {"in_channels": 3, "out_channels": 3}
        self.mean, self.std = mean, torch.linspace(0.1, 1.0, 3 * SIDE * SIDE, dtype=torch.float64).view(3, SIDE, SIDE)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        a = schedule.alpha(labels[0].item() / 999)
        m, variance = a**0.5 * self.mean, (a * self.std**2 + 1 - a).to(x)
        return (1 - a) ** 0.5 * (x - m * torch.tanh(m * x / variance)) / variance


def known(mean: float = 0.0) -> PixelPrior:
    return PixelPrior(Known(mean), (1 - BETAS).cumprod(0), memory=None)


@pytest.fixture(scope="module")
def network() -> PixelPrior:
    """A small UNet2DModel with random weights, in float64."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    return PixelPrior(unet.double(), (1 - BETAS).cumprod(0), memory=None)


def purifier(prior: PixelPrior, dt: float = 0.02, guidance: Guidance | None = None, **more: Any) -> DiffPure:
    sampler = more.pop("sampler", None) or ReverseSDE(dt)
    return DiffPure(prior, sampler, 0.1, more.pop("forward_noise", "discrete"), guidance, **more)


def problem(view: Any, x: Tensor) -> Problem:
    return Problem(view, x, torch.arange(len(x)) % 5, tuple(range(100, 100 + len(x))), Threat("linf", 8 / 255), 0)


def gradient(view: Any, x: Tensor) -> Tensor:
    each = problem(view, x)
    return estimate(each, x, each.stream("attack").draws(2), losses.cross_entropy).gradient


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_surrogates_gradient_is_the_cheaper_defenses_and_its_queries_are_the_defenses(batch, images, smooth):
    x, model = images(batch, dtype=torch.float64), smooth().double()
    defense = Defense(purifier(known(0.5)), model)
    cheaper = Defense(purifier(known(0.5), 0.05), model)
    view = Surrogate(defense, ReverseSDE(0.05))
    assert torch.equal(gradient(view, x), gradient(Full(cheaper), x))
    assert not torch.equal(gradient(view, x), gradient(Full(defense), x))
    noise = streams(0, range(batch))["select"].draws(3)
    assert torch.equal(view.query(x, noise), Full(defense).query(x, noise))


def test_a_surrogate_with_the_same_sampler_is_the_full_view(images, smooth):
    x, defense = images(3, dtype=torch.float64), Defense(purifier(known(0.5)), smooth().double())
    view = Surrogate(defense, ReverseSDE(0.02))
    assert torch.equal(gradient(view, x), gradient(Full(defense), x))
    found = agreement(view, problem(view, x))
    assert found["gradient_cosine"] == pytest.approx(1.0)
    assert found["gradient_signs"] == 100.0


def test_a_surrogate_of_a_deterministic_defense_still_asks_before_it_believes(smooth):
    flow = purifier(known(), sampler=ProbabilityFlow(0.02), forward_noise=None)
    assert not flow.randomized
    assert Surrogate(Defense(flow, smooth()), ProbabilityFlow(0.05)).randomized


@pytest.mark.parametrize("last_noise", [True, False])
@pytest.mark.parametrize("guided", [None, "confidence", "distance"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_adjoint_purifies_as_the_purifier_does(batch, guided, last_noise, network, images, smooth):
    """In the second round too, whose guidance draws noise of its own."""
    model = smooth().double()
    guidance = {None: None, "confidence": ClassifierConfidence(model), "distance": Distance("mse", 100.0)}[guided]
    rounds = 1 if guidance is None else 2
    made = purifier(network, guidance=guidance, sampler=ReverseSDE(0.02, last_noise=last_noise), rounds=rounds)
    view = Adjoint(Defense(made, model))
    noise = streams(0, range(batch))["attack"].draws()
    x = images(batch, dtype=torch.float64)
    assert (view.differentiated.purify(x, noise) - made(x, noise)).abs().max() <= 1e-10
    network.float(), model.float()
    try:
        assert (view.differentiated.purify(x.float(), noise) - made(x.float(), noise)).abs().max() <= 1e-5
    finally:
        network.double()


@pytest.mark.parametrize("mean, dt, least", [(0.0, 1e-3, 0.99), (0.5, 1e-3, 0.99)])
def test_the_adjoint_is_right_where_the_score_is_smooth_and_steps_are_short(mean, dt, least, images, smooth):
    x = images(2, dtype=torch.float64)
    view = Adjoint(Defense(purifier(known(mean), dt), smooth().double()))
    exact, found = gradient(Full(view.defense), x).flatten(1), gradient(view, x).flatten(1)
    cosine = F.cosine_similarity(exact, found)
    assert (cosine > least).all(), cosine
    assert ((found.norm(dim=1) / exact.norm(dim=1) - 1).abs() < 0.1).all()


def test_the_adjoint_is_biased_on_a_network_and_more_so_the_longer_the_steps(network, images, smooth):
    x, cosine, signs = images(4, dtype=torch.float64), [], []
    for dt in (1e-3, 5e-3, 2e-2):
        view = Adjoint(Defense(purifier(network, dt), smooth().double()))
        found = agreement(view, problem(view, x))
        cosine.append(found["gradient_cosine"])
        signs.append(found["gradient_signs"])
    assert 0.999 > cosine[0] > cosine[1] > cosine[2]
    assert cosine[1] < 0.98
    assert signs[1] < 95


def test_guidance_that_looks_at_the_input_is_differentiated_through_it_by_the_adjoint_too(images, smooth):
    x, guidance = images(2, dtype=torch.float64), Distance("mse", scale=100.0)
    defense = Defense(purifier(known(0.3), 1e-3, guidance, forward_noise=None), smooth().double())
    exact, found = gradient(Full(defense), x).flatten(1), gradient(Adjoint(defense), x).flatten(1)
    assert F.cosine_similarity(exact, found).min() > 0.999
    # Without the path through the input, a quarter of the gradient's length is missing.
    assert ((found.norm(dim=1) / exact.norm(dim=1) - 1).abs() < 0.05).all()


def test_the_path_repeats_the_purifiers_noise_and_adds_up(images):
    x, noise = images(2, dtype=torch.float64), streams(0, range(2))["attack"].draws()
    sampler = ReverseSDE(0.02)
    steps = sampler.steps(known(), 0.1)
    path = KeyedPath(steps, sampler, x, noise, "")
    for k, step in enumerate(steps):
        expected = step.h**0.5 * noise.normal(x, f"step {k}").flatten(1)
        assert torch.allclose(path(1 - step.t, 1 - step.t + step.h), expected, atol=1e-12)
    whole, inside = path(0.9, 0.98), 0.9234
    assert torch.allclose(path(0.9, inside) + path(inside, 0.98), whole, atol=1e-12)
    many = images(1).new_zeros(1, 3, 60, 60)
    wide = KeyedPath(steps, sampler, many, streams(0, [0])["attack"].draws(), "")
    assert wide(0.9, 0.905).var() == pytest.approx(0.005, rel=0.05)
    assert wide(0.905, 0.945).var() == pytest.approx(0.04, rel=0.05)


def test_a_detached_view_shares_the_defense_and_misses_its_guidance(images, smooth):
    x, model = images(3, dtype=torch.float64), smooth().double()
    guidance = ClassifierConfidence(model, weight=3.0)
    defense = Defense(purifier(known(0.5), guidance=guidance), model)
    view, noise = Detached(defense), streams(0, range(3))["attack"].draws()
    assert torch.equal(view.differentiated.purify(x, noise), defense.purify(x, noise))
    assert defense.purifier.guidance is guidance
    assert not guidance.detach_guidance
    exact, found = gradient(Full(defense), x), gradient(view, x)
    assert not torch.allclose(exact, found)
    hidden = ClassifierConfidence(model, weight=3.0, detach_guidance=True)
    assert torch.equal(found, gradient(Full(Defense(purifier(known(0.5), guidance=hidden), model)), x))


def test_views_refuse_a_purifier_without_what_they_need(smooth):
    plain = Defense(Purifier(), smooth())
    flow = Defense(purifier(known(), sampler=ProbabilityFlow(0.02)), smooth())
    for make in (
        lambda: Surrogate(plain, DDIM(2)),
        lambda: Adjoint(plain),
        lambda: Adjoint(flow),
        lambda: Detached(flow),
    ):
        with pytest.raises(ValueError, match=r"view=.* needs a purifier") as caught:
            make()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["attack=surrogate"], "view=surrogate with purifier=lgap: it needs a purifier with a pixel prior"),
        (["attack=surrogate", "purifier=none"], "view=surrogate with purifier=none"),
        (["attack=surrogate", "purifier=likelihood_max"], "likelihood_max: it needs purifier.sampler,"),
        (["attack=adjoint"], "view=adjoint with purifier=lgap: it needs purifier.sampler.noise=true"),
        (["attack=adjoint", "purifier=gdmp"], "purifier.sampler.noise=true"),
        (["attack=adjoint", "purifier=coup", "purifier.sampler.noise=false"], "purifier.sampler.noise=true"),
        (["attack=adjoint", "purifier=coup", "purifier/sampler=ode"], "purifier.sampler.noise=true"),
        (["attack=full_detached", "purifier=diffpure"], "view=detached with purifier=diffpure: .*purifier.guidance,"),
        (["attack=full_detached", "purifier=none"], "purifier.guidance"),
        (["attack=square", "purifier=diffpure", "view=surrogate"], "view=surrogate with attack=square"),
    ],
)
def test_what_makes_no_sense_is_refused_before_loading(overrides, words):
    with pytest.raises(ValueError, match=words) as caught:
        check(resolved(overrides))
    assert "\n" not in str(caught.value)


def test_a_missing_torchsde_is_named_with_its_extra(monkeypatch, smooth):
    monkeypatch.setitem(sys.modules, "torchsde", None)
    words = r"view=adjoint needs torchsde: pip install 'lgap-bench\[adjoint\]'"
    with pytest.raises(ValueError, match=words):
        Adjoint(Defense(purifier(known()), smooth()))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=words):
        require_files(resolved(["attack=adjoint", "purifier=coup"]))


def test_views_share_the_defenses_part_of_the_identity():
    full, hidden = (resolved(["purifier=coup", f"attack={name}"]) for name in ("full", "full_detached"))
    a, b = identity(full, "cpu"), identity(hidden, "cpu")
    assert a["purifier"] == b["purifier"]
    assert a["view"] != b["view"]
    assert "shown" not in identity(resolved(["purifier=coup", "attack=adjoint"]), "cpu")["view"]


def test_the_probe_lands_in_the_record_and_on_screen_and_survives_a_kill(tmp_path, monkeypatch):
    few = ["n=3", "chunk=2", "score_draws=2", "threads=1", "device=cpu", "attack.steps=1", "attack.draws=1"]
    few += ["attack.confirm_draws=2", "attack.select_draws=1", f"outputs={tmp_path}", "purifier=diffpure"]
    cfg = composed(["attack=adjoint", *few])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lgap_bench.record.Record.finish", killed)
        with pytest.raises(KeyboardInterrupt):
            run_cell(cfg, cfg.hydra.runtime.choices)
    with monkeypatch.context() as patched:
        patched.setattr(
            "lgap_bench.evaluation.diagnose.agreement", None
        )  # the chunks are there: nothing is probed again
        record = run_cell(cfg, cfg.hydra.runtime.choices)
    held = json.loads((record.folder / "summary.json").read_text())
    assert held["view"] == "adjoint (biased)"
    assert -1 <= held["gradient_cosine"] < 0.9
    assert 0 < held["gradient_signs"] < 100
    assert "(view adjoint (biased))" in one_screen(record)
    assert f"cosine {held['gradient_cosine']:.3f}, signs agree {held['gradient_signs']:.1f} %" in one_screen(record)
    assert not any(name.startswith("probe") for name in record.samples())
