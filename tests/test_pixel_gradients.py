"""The exact gradient through every diffusion purifier and guidance: finite differences, recomputation, what is detached.

Decoding clips to [0, 1]; a finite difference across that kink would show nothing, so purified images are asserted to lie
inside. The networks and the classifiers are smooth, the weights random, everything is float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pixels import KEEP, noise_of, tiny
from torch import Tensor, nn

from lgap_bench.attack.autoattack import ViewLogits
from lgap_bench.attack.module import ViewModule
from lgap_bench.attack.problem import Problem
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import Full
from lgap_bench.captioner.text import Fixed
from lgap_bench.defense import Defense
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.purifier.guidance import ClassifierConfidence, Distance, Guidance
from lgap_bench.purifier.lgap import LGAP
from lgap_bench.purifier.likelihood import LikelihoodMax
from lgap_bench.purifier.memory import Memory
from lgap_bench.purifier.sampler import DDIM, DDPM, ProbabilityFlow, ReverseSDE
from lgap_bench.task import loss as losses

SDE, FLOW, DDPM_STEPS, DDIM_STEPS = ReverseSDE(0.01), ProbabilityFlow(0.01), DDPM(clip=False, calls=2), DDIM(2)


def diffpure(sampler: Any, guided: Callable[..., Guidance] | None = None, depth: float = 0.02, **settings: Any):
    """`make(parts, detach)`: a purifier of pixels; `parts` has the priors and the guiding classifier."""

    def make(parts: dict[str, Any], detach: bool = False) -> Purifier:
        guidance = None if guided is None else guided(parts["classifier"], detach)
        prior = parts["learned" if getattr(sampler, "variance", "") == "learned_range" else "prior"]
        return DiffPure(prior, sampler, depth, guidance=guidance, **settings)

    return make


def likelihood(guided: Callable[..., Guidance] | None = None, **settings: Any):
    def make(parts: dict[str, Any], detach: bool = False) -> Purifier:
        guidance = None if guided is None else guided(parts["classifier"], detach)
        settings_ = {"steps": 2, "step_size": 0.3, "eps": None, **settings}
        return LikelihoodMax(parts["prior"], guidance=guidance, **settings_)

    return make


def lgap_coup(at: str):
    def make(parts: dict[str, Any], detach: bool = False) -> Purifier:
        guidance = ClassifierConfidence(parts["classifier"], 0.5, at=at, detach_guidance=detach)
        captioner = Fixed("a photo of a bold seven")
        return LGAP(parts["latent"], captioner, 4, 0.5, guidance=guidance)

    return make


def confident(at: str = "x_t", weight: float = 20.0):
    return lambda classifier, detach: ClassifierConfidence(classifier, weight, at=at, detach_guidance=detach)


def near(kind: str, scale: float):
    return lambda classifier, detach: Distance(kind, scale, detach_guidance=detach)


COUP = {"forward_noise": None}
PURIFIERS = {
    "diffpure reverse_sde": diffpure(SDE),
    "ddpm learned_range, guided": diffpure(DDPM("learned_range", clip=False, calls=2), confident()),
    "ddpm fixed_large, guided": diffpure(DDPM("fixed_large", clip=False, calls=2), near("ssim", 30.0)),
    "ddim, ssim": diffpure(DDIM_STEPS, near("ssim", 30.0)),
    "ode, confident at x_0": diffpure(FLOW, confident("x_0")),
    "diffpure continuous": diffpure(ReverseSDE(0.01, last_noise=False), forward_noise="continuous"),
    "diffpure ode": diffpure(FLOW),
    "diffpure ddpm": diffpure(DDPM_STEPS),
    "diffpure ddpm learned": diffpure(DDPM("learned_range", False, 2)),
    "diffpure ddim": diffpure(DDIM_STEPS),
    "coup": diffpure(SDE, confident(), **COUP),
    "coup at x_0": diffpure(SDE, confident("x_0"), **COUP),
    "coup ode": diffpure(FLOW, confident(), **COUP),
    "coup ddim": diffpure(DDIM_STEPS, confident(), **COUP),
    "coup_unguided": diffpure(SDE, **COUP),
    "gdmp mse": diffpure(DDPM_STEPS, near("mse", 50.0), rounds=2),
    "gdmp ssim": diffpure(DDPM_STEPS, near("ssim", 10.0), rounds=2),
    "distance from the input itself": diffpure(SDE, near("mse", 50.0), **COUP),
    "likelihood_max": likelihood(),
    "likelihood_max_guided": likelihood(confident(weight=20.0)),
    "lgap_coup at x_0": lgap_coup("x_0"),
    "lgap_coup at x_t": lgap_coup("x_t"),
}
GUIDED = [name for name in PURIFIERS if name.startswith(("coup", "gdmp", "dist", "lgap")) and name != "coup_unguided"]


@pytest.fixture(scope="module")
def parts(request):
    """The priors in float64, and the classifier that guides, another one than the defended."""
    from conftest import Smooth

    return {
        "prior": tiny(),
        "learned": tiny(learned_variance=True),
        "latent": request.getfixturevalue("prior64"),
        "classifier": Smooth(16, seed=9).double(),
    }


def inner(images: Callable[..., Tensor], count: int) -> Tensor:
    """Images in [0.35, 0.65], which stay inside the box when noise is added."""
    return 0.5 + (images(count, 16, dtype=torch.float64) - 0.5) / 2


def slope(defense: Defense, x: Tensor, noise, direction: Tensor, h: float = 1e-4) -> Tensor:
    """d/ds loss(x + s direction) per image at s = 0, by central differences of fourth order."""
    y = torch.arange(len(x)) % 5

    def at(s: float) -> Tensor:
        with torch.no_grad():
            return losses.cross_entropy(defense(x + s * direction, noise), y)

    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def gradient(defense: Defense, x: Tensor, noise) -> tuple[Tensor, Tensor]:
    """Purified images, and the gradient of the summed loss."""
    leaf = x.clone().requires_grad_()
    purified = defense.purify(leaf, noise)
    loss = losses.cross_entropy(defense.classify(purified), torch.arange(len(x)) % 5).sum()
    return purified.detach(), torch.autograd.grad(loss, leaf)[0]


def defended(name: str, parts: dict[str, Any], smooth, keep: str = "kept", detach: bool = False) -> Defense:
    purifier = PURIFIERS[name](parts, detach)
    purifier.memory = Memory(KEEP[keep])
    return Defense(purifier, smooth(16).double())


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", PURIFIERS)
def test_the_gradient_is_exact_and_recomputation_changes_none_of_it(name, batch, parts, images, smooth):
    x, noise = inner(images, batch), noise_of(batch)
    found = {}
    for keep in KEEP:
        defense = defended(name, parts, smooth, keep)
        purified, found[keep] = gradient(defense, x, noise)
        assert 0.01 < purified.min() <= purified.max() < 0.99, "the clipping is in play: choose other weights"
        with torch.no_grad():
            torch.testing.assert_close(defense.purify(x, noise), purified, rtol=0, atol=1e-12)
    deviation = ((found["recomputed"] - found["kept"]).abs().max() / found["kept"].abs().max()).item()
    assert deviation <= 1e-10, f"recomputation changes the gradient by {deviation:.1e} of its largest entry"

    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction /= direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = slope(defense, x, noise, direction)
    by_hand = (found["kept"] * direction).flatten(1).sum(1)
    error = ((by_hand - expected).norm() / expected.norm()).item()
    assert error <= 1e-6, f"{error:.1e} off finite differences"


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name", ["coup_unguided", "coup", "gdmp ssim"])
def test_recomputation_runs_every_step_twice_guided_or_not(name, detach, parts, images, smooth):
    """Once forward, once for the gradient: a guidance that takes a gradient inside the step adds no third time."""
    defense = defended(name, parts, smooth, "recomputed", detach)
    calls: list[int] = []
    hook = defense.purifier.prior.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    gradient(defense, inner(images, 1), noise_of(1))
    hook.remove()
    assert len(calls) == 2 * len(defense.purifier.steps) * defense.purifier.rounds


class Constant(Guidance):
    """Guidance terms that were recorded before: what a detached term is to a gradient."""

    def __init__(self, terms: list[Tensor]) -> None:
        super().__init__()
        self.terms = terms

    def term(self, image: Any, x: Tensor, noise: Any, tag: str = "") -> Any:
        return lambda x_t, e, step: self.terms.pop(0)


class Recorded(Guidance):
    """Another guidance, and what it said."""

    def __init__(self, guidance: Guidance) -> None:
        super().__init__()
        self.guidance, self.said = guidance, []

    def term(self, image: Any, x: Tensor, noise: Any, tag: str = "") -> Any:
        term = self.guidance.term(image, x, noise, tag)

        def told(*state: Any) -> Tensor:
            self.said.append(term(*state).detach())
            return self.said[-1]

        return told


@pytest.mark.parametrize("name", GUIDED)
def test_a_detached_guidance_is_a_constant_to_the_gradient(name, parts, images, smooth):
    x, noise = inner(images, 3), noise_of(3)
    image, hidden = gradient(defended(name, parts, smooth, "kept", detach=True), x, noise)
    again, recomputed = gradient(defended(name, parts, smooth, "recomputed", detach=True), x, noise)
    torch.testing.assert_close(recomputed, hidden, rtol=0, atol=1e-10 * hidden.abs().max().item())
    torch.testing.assert_close(image, again, rtol=0, atol=1e-12)

    whole, exact = gradient(defended(name, parts, smooth), x, noise)
    torch.testing.assert_close(whole, image, rtol=0, atol=1e-12)
    assert (exact - hidden).abs().max() > 1e-4 * exact.abs().max(), "the term has no derivative: the test shows nothing"

    defense = defended(name, parts, smooth)
    recorded = Recorded(defense.purifier.guidance)
    defense.purifier.guidance = recorded
    defense.purify(x, noise)
    defense.purifier.guidance = Constant(recorded.said)
    same, constant = gradient(defense, x, noise)
    torch.testing.assert_close(same, image, rtol=0, atol=1e-12)
    torch.testing.assert_close(constant, hidden, rtol=0, atol=1e-10 * hidden.abs().max().item())


def test_detaching_takes_only_the_guidance_out_of_likelihood_maximisation(parts, images, smooth):
    """The ascent on the bound keeps its second derivative: without guidance's, the gradient is not BPDA's."""
    x, noise = inner(images, 3), noise_of(3)
    exact, hidden = (
        gradient(defended("likelihood_max_guided", parts, smooth, detach=detach), x, noise) for detach in (False, True)
    )
    torch.testing.assert_close(exact[0], hidden[0], rtol=0, atol=1e-12)
    assert (exact[1] - hidden[1]).abs().max() > 1e-4 * exact[1].abs().max()


@pytest.mark.parametrize("eps", [0.004, "4/255"])
def test_likelihood_maximisation_stays_in_its_ball(eps, parts, images):
    x, noise = inner(images, 3), noise_of(3)
    prior = parts["prior"]
    out = LikelihoodMax(prior, 3, 3.0, eps)(x, noise)
    radius = 4 / 255 if eps == "4/255" else eps
    assert (out - x).abs().max().item() == pytest.approx(radius, rel=1e-9)
    free = LikelihoodMax(prior, 1, 0.3, None)(x, noise)
    length = (2 * (free - x)).flatten(1).norm(dim=1)
    torch.testing.assert_close(length, torch.full_like(length, 0.3), rtol=1e-9, atol=0)


def test_likelihood_maximisation_raises_the_bound(parts, images):
    x, noise = inner(images, 3), noise_of(3)
    purifier = LikelihoodMax(parts["prior"], 1, 1e-3, None)
    before = purifier.lower_bound(2 * x - 1, noise, 0)
    assert (purifier.lower_bound(2 * purifier(x, noise) - 1, noise, 0) > before).all()


@pytest.mark.parametrize("name", ["diffpure reverse_sde", "coup", "gdmp ssim", "likelihood_max"])
def test_no_gradient_is_computed_where_none_is_asked_for(name, parts, images, smooth):
    x, noise = images(2, 16, dtype=torch.float64), noise_of(2)
    defense = defended(name, parts, smooth)
    with torch.no_grad():
        assert not defense(x, noise).requires_grad
    assert not defense(x, noise).requires_grad
    assert all(p.grad is None and not p.requires_grad for p in defense.parameters())


@pytest.mark.parametrize("function", ["autoattack", "torchattacks"])
def test_a_guided_purifier_is_attacked_in_several_passes(function):
    """torch's checkpoint, around a step in which guidance takes a gradient of its own, stops with an error."""
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10)).double()
    purifier = DiffPure(tiny(), ReverseSDE(0.05, noise=False), 0.1, None, ClassifierConfidence(classifier, weight=20.0))
    x, y = torch.rand(3, 3, 16, 16, dtype=torch.float64), torch.tensor([1, 2, 3])
    found = []
    for rows in (3, 1):
        problem = Problem(Full(Defense(purifier, classifier), rows), x, y, (0, 1, 2), Threat("linf", 0.1), 0)
        model = ViewLogits(problem) if function == "autoattack" else ViewModule(problem, 1)
        z = x.clone().requires_grad_(True)
        found.append(torch.autograd.grad(nn.functional.cross_entropy(model(z), y), z)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-8)
