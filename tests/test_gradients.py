"""What each view lets an attacker differentiate, and that the gradient is right.

The decoder clips to [0, 1]; a finite difference across that kink would show nothing. The weights of `prior64` keep the
purified images strictly inside, which every test here that needs it asserts.
"""

from __future__ import annotations

import math

import pytest
import torch
from conftest import CAPTIONS
from torch import Tensor, nn

from lgap_bench.attack.problem import Problem, estimate
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import Blind, Bpda, Caption, Full
from lgap_bench.captioner.text import Fixed
from lgap_bench.classifier.wide_resnet import WideResNet
from lgap_bench.defense import Defense, passes
from lgap_bench.noise import Noise
from lgap_bench.purifier.lgap import LGAP
from lgap_bench.purifier.memory import Memory
from lgap_bench.task import loss as losses

LOSSES = [losses.cross_entropy, losses.margin, losses.dlr]


def lgap(prior, gib: float | None = 0, scale=1.0, captioner=None, **settings) -> LGAP:
    settings = {"steps": 6, "strength": 0.5, **settings}
    purifier = LGAP(prior, captioner or Fixed("a photo"), guidance_scale=scale, **settings)
    purifier.memory = Memory(gib)
    return purifier


def assert_inside(purified: Tensor) -> None:
    assert 0.01 < purified.min() <= purified.max() < 0.99, "the decoder's clipping is in play: choose other weights"


def directional(problem: Problem, x: Tensor, noise: Noise, loss, direction: Tensor, h: float = 1e-4) -> Tensor:
    """d/ds loss(x + s direction) per image at s = 0, by central differences of fourth order."""

    def at(s: float) -> Tensor:
        with torch.no_grad():
            return loss(problem.view.defense(x + s * direction, noise), problem.y)

    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_full_gradient_equals_plain_autograd_and_finite_differences(
    batch, scale, prior64, images, smooth, make_problem
):
    x, classifier = images(batch, 16, dtype=torch.float64), smooth(16).double()
    found = {}
    for gib in (0, None):
        purifier = lgap(prior64, gib, scale, Fixed("a photo of a bold seven"), negative_prompt="thin")
        problem = make_problem(classifier, x, purifier=purifier)
        noise = problem.stream("attack").draws()
        assert_inside(purifier(x, noise))
        found[gib] = estimate(problem, x, noise, losses.cross_entropy).gradient

    largest = found[None].abs().max()
    deviation = ((found[0] - found[None]).abs().max() / largest).item()
    assert deviation <= 1e-10, f"recomputation changes the gradient by {deviation:.1e} of its largest entry"

    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        direction /= direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        expected = directional(problem, x, noise, losses.cross_entropy, direction)
        for gib, gradient in found.items():
            slope = (gradient * direction).flatten(1).sum(1)
            error = ((slope - expected).abs() / gradient.flatten(1).norm(dim=1)).max().item()
            assert error <= 1e-6, f"memory={gib}: {error:.1e} off finite differences, relative to |gradient|"
            relative = ((slope - expected).norm() / expected.norm()).item()
            assert relative <= 1e-6, f"memory={gib}: {relative:.1e} off finite differences"


@pytest.mark.parametrize("loss", LOSSES)
def test_full_gradient_through_resizing_and_a_wide_resnet(loss, prior64, images, make_problem):
    """The direction is the gradient's own. A step so small crosses no kink of ReLU here, and stands far above rounding."""
    torch.manual_seed(0)
    x, classifier = images(3, 16, dtype=torch.float64), WideResNet(10, 1).double()
    purifier = lgap(prior64, scale=2.0, resize_in=24)
    problem = make_problem(classifier, x, purifier=purifier)
    noise = problem.stream("attack").draws()
    assert_inside(purifier(x, noise))
    gradient = estimate(problem, x, noise, loss).gradient
    length = gradient.flatten(1).norm(dim=1)
    slope = directional(problem, x, noise, loss, gradient / length.view(-1, 1, 1, 1), h=3e-6)
    error = ((slope - length).abs() / length).max().item()
    assert error <= 1e-6, f"{error:.1e} off finite differences"


@pytest.fixture
def defended(prior, images, smooth):
    """A small LGAP defense, images and noise for it."""
    return Defense(lgap(prior, scale=2.0), smooth(16)), images(3, 16)


def one_call(view, x, noise, y):
    x = x.clone().requires_grad_()
    logits = view.logits(x, noise, view.observe(x, noise))
    each = losses.cross_entropy(logits, y)
    gradient = torch.autograd.grad(each.sum(), x)[0] if logits.requires_grad else torch.zeros_like(x)
    return logits.detach(), gradient


def test_bpda_is_the_defense_forward_and_the_classifier_backward(defended, make_problem):
    defense, x = defended
    problem = make_problem(defense.classifier, x, purifier=defense.purifier, view=Bpda)
    noise, y = problem.stream("attack").draws(), problem.y
    logits, gradient = one_call(problem.view, x, noise, y)
    assert torch.equal(logits, defense(x, noise))
    purified = defense.purifier(x, noise).detach().requires_grad_()
    (expected,) = torch.autograd.grad(losses.cross_entropy(defense.classifier(purified), y).sum(), purified)
    assert torch.equal(gradient, expected)
    _, full = one_call(Full(defense), x, noise, y)
    _, blind = one_call(Blind(defense), x, noise, y)
    for other in (full, blind):
        assert torch.cosine_similarity(other.flatten(), gradient.flatten(), dim=0) < 0.99


def test_bpda_refuses_a_purifier_that_changes_the_size(prior, images, smooth, make_problem):
    x = images(2, 16)
    problem = make_problem(smooth(16), x, purifier=lgap(prior, resize_out=24), view=Bpda)
    with pytest.raises(ValueError, match=r"attack.view=bpda needs a purifier that keeps the image size, got .24, 24."):
        problem.view.logits(x, problem.stream("attack").draws())


def test_blind_sees_the_classifier_alone(defended, make_problem, monkeypatch):
    defense, x = defended
    problem = make_problem(defense.classifier, x, purifier=defense.purifier, view=Blind)
    noise, y = problem.stream("attack").draws(), problem.y

    def called(*_):
        raise AssertionError("a blind attacker called the purifier")

    monkeypatch.setattr(defense.purifier, "forward", called)
    monkeypatch.setattr(defense.purifier, "observe", called)
    logits, gradient = one_call(problem.view, x, noise, y)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(losses.cross_entropy(defense.classifier(leaf), y).sum(), leaf)
    assert torch.equal(logits, defense.classifier(x))
    assert torch.equal(gradient, expected)
    assert torch.equal(problem.view.query(x, noise)[0], logits)
    assert not problem.view.randomized


def test_caption_view_has_no_gradient_of_the_class(defended, make_problem):
    defense, x = defended
    problem = make_problem(defense.classifier, x, purifier=defense.purifier, view=Caption)
    noise = problem.stream("attack").draws()
    at = estimate(problem, x, noise, losses.cross_entropy)
    assert torch.equal(at.logits[0], defense(x, noise))
    assert torch.equal(at.gradient, torch.zeros_like(x))


@pytest.mark.parametrize("view", [Caption, Bpda, Full, Blind])
def test_the_caption_term_is_the_captioners_own_loss_and_gradient(view, prior, blip, images, smooth, make_problem):
    x, truth = images(3, 16), CAPTIONS[:3]
    problem = make_problem(smooth(16), x, purifier=lgap(prior, captioner=blip), view=view, captions=truth)
    noise = problem.stream("attack").draws()
    without = estimate(problem, x, noise, losses.cross_entropy)
    with_it = estimate(problem, x, noise, losses.cross_entropy, caption_weight=2.0)
    leaf = x.clone().requires_grad_()
    worded = blip.loss(leaf, truth)
    (expected,) = torch.autograd.grad(worded.sum(), leaf)
    torch.testing.assert_close(with_it.loss - without.loss, 2 * worded.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(with_it.gradient - without.gradient, 2 * expected, atol=1e-5, rtol=1e-4)
    assert expected.abs().max() > 1e-3


def test_a_caption_attack_without_a_captioner_is_refused(prior, images, smooth, make_problem):
    x = images(1, 16)
    for purifier in (None, lgap(prior)):
        problem = make_problem(smooth(16), x, purifier=purifier, captions=["a photo"])
        with pytest.raises(ValueError, match=r"attack.caption_weight > 0 needs a purifier with a captioner"):
            estimate(problem, x, problem.stream("attack").draws(), losses.cross_entropy, caption_weight=1.0)


def test_the_caption_is_read_anew_on_every_iterate_and_once_for_all_draws(prior, blip, images, smooth, make_problem):
    x = images(3, 16)
    other = images(3, 16, seed=8).pow(3)
    assert blip(x) != blip(other), "the random captioner says the same of both: the test shows nothing"
    problem = make_problem(smooth(16), x, purifier=lgap(prior, captioner=blip))
    noise, asked = problem.stream("attack").draws(3), []
    hook = blip.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    at = estimate(problem, other, noise, losses.cross_entropy)
    queried = problem.view.query(other, noise)
    hook.remove()
    assert asked == [3, 3], "one caption per image and iterate, shared by its draws"
    expected = problem.view.defense(other.repeat(3, 1, 1, 1), noise, blip(other) * 3).view(3, 3, -1)
    torch.testing.assert_close(at.logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(queried, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("max_rows", [512, 7, 4, 1])
@pytest.mark.parametrize("view", [Full, Bpda])
def test_an_estimate_over_draws_is_the_mean_of_single_calls(view, max_rows, prior, blip, images, smooth, make_problem):
    """Also where the rows are cut in pieces that hold parts of two draws."""
    x, draws = images(3, 16), 5
    problem = make_problem(smooth(16), x, purifier=lgap(prior, captioner=blip), view=view, max_rows=max_rows)
    noise = problem.stream("attack").draws(draws)
    at = estimate(problem, x, noise, losses.cross_entropy)
    observed = blip(x)
    loss, gradient, logits = torch.zeros(3), torch.zeros_like(x), []
    for draw in range(draws):
        leaf = x.clone().requires_grad_()
        out = problem.view.logits(leaf, noise.rows(3 * draw, 3 * draw + 3), observed)
        each = losses.cross_entropy(out, problem.y)
        gradient += torch.autograd.grad(each.sum(), leaf)[0] / draws
        loss += each.detach() / draws
        logits.append(out.detach())
    assert torch.stack(logits).std(0).max() > 1e-3, "all draws are alike: the test shows nothing"
    torch.testing.assert_close(at.loss, loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(at.gradient, gradient, atol=1e-5 * gradient.abs().max().item(), rtol=1e-4)
    torch.testing.assert_close(at.logits, torch.stack(logits), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(problem.view.query(x, noise), at.logits, atol=1e-5, rtol=1e-5)
    assert torch.equal(at.correct, at.logits.argmax(-1) == problem.y)


def test_a_gradient_that_is_not_finite_is_an_error_that_names_the_sample(images, make_problem):
    class Breaks(nn.Module):
        def forward(self, x):
            pole = torch.tensor([1.0, 0.0, 1.0]).view(3, 1)
            return x.flatten(1)[:, :2] * pole.sqrt() / pole

    x = images(3)
    problem = make_problem(Breaks(), x, y=torch.zeros(3, dtype=torch.long), ids=(4, 5, 6))
    with pytest.raises(FloatingPointError, match="gradient of sample 5 is not finite"):
        estimate(problem, x, problem.stream("attack").draws(), losses.cross_entropy)


def test_a_part_of_a_problem_keeps_every_sample_with_its_own(images, make_problem, smooth):
    x = images(4)
    problem = make_problem(smooth(), x, captions=CAPTIONS[:4], ids=(9, 8, 7, 6), threat=Threat("l2", 0.5), seed=3)
    part = problem.take([2, 0])
    assert (part.ids, part.captions) == ((7, 9), [CAPTIONS[2], CAPTIONS[0]])
    assert torch.equal(part.x, x[[2, 0]])
    assert torch.equal(part.y, problem.y[[2, 0]])
    assert (part.threat, part.seed, part.view) == (problem.threat, 3, problem.view)
    assert part.stream("attack").draws().keys == tuple(problem.stream("attack").draws().keys[i] for i in (2, 0))


LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 3.0, 1.0, 2.0]])
LABELS = torch.tensor([0, 2])
LOSS_VALUES = {
    # by hand: margin = largest other - own; DLR = margin / (first - third)
    "margin": (losses.margin, [-1.0, 2.0]),
    "dlr": (losses.dlr, [-0.5, 1.0]),
    "cross_entropy": (losses.cross_entropy, [math.log(1 + math.e**-1 + math.e**-2 + math.e**-3), math.log(1 + 1 / math.e + math.e + math.e**2)]),
    "targeted_cross_entropy": (losses.targeted_cross_entropy, [-math.log(1 + math.e**-1 + math.e**-2 + math.e**-3), -math.log(1 + 1 / math.e + math.e + math.e**2)]),
    # targeted DLR towards class 1: -(own - target) / (first - (third + fourth) / 2)
    "targeted_dlr": (lambda z, y: losses.targeted_dlr(z, y, torch.ones_like(y)), [-1 / 2.5, 2 / 2.5]),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSS_VALUES)
def test_losses_by_hand(name):
    loss, expected = LOSS_VALUES[name]
    torch.testing.assert_close(loss(LOGITS, LABELS), torch.tensor(expected))


@pytest.mark.parametrize("rows, most, pieces", [(5, 2, [(0, 2), (2, 4), (4, 5)]), (3, 512, [(0, 3)]), (0, 4, [])])
def test_rows_are_cut_without_gap_or_overlap(rows, most, pieces):
    assert passes(rows, most) == pieces
