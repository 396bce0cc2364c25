"""Synthetic defenses whose robustness is known: an honest evaluation finds it, whatever noise or masking they add."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lgap_bench.attack.autoattack import AutoAttack
from lgap_bench.attack.expectation import Expectation
from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.problem import Problem
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import Bpda, Full, View
from lgap_bench.defense import Defense
from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier

CLASSES, N, SCORE_DRAWS = 10, 200, 20
GAP = 1 / CLASSES  # between the classes' mean intensities, so linf perturbations below GAP / 2 change no label
ROBUST, BROKEN = Threat("linf", 0.3 * GAP), Threat("linf", 0.8 * GAP)


class Intensity(nn.Module):
    """Nearest class by mean intensity: linear in x up to a term that all classes share, so its robustness is closed form."""

    def __init__(self, scale: float = 300.0) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("centres", (torch.arange(CLASSES) + 0.5) * GAP)

    def forward(self, x: Tensor) -> Tensor:
        return -self.scale * (x.flatten(1).mean(1, keepdim=True) - self.centres) ** 2


class Flipper(Defense):
    """Answers with another class, drawn uniformly, in a share of its calls, whatever the image."""

    def __init__(self, classifier: nn.Module, rate: float) -> None:
        super().__init__(Purifier(), classifier)
        self.rate = rate

    @property
    def randomized(self) -> bool:
        return True

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        logits = self.classifier(x)
        flip, which = noise.uniform(logits[:, :2], "flip").unbind(1)
        shift = (flip < self.rate) * (1 + (which * (CLASSES - 1)).long())
        return logits.gather(1, (torch.arange(CLASSES) + shift[:, None]) % CLASSES)


class Quantiser(Purifier):
    """Rounds to a grid: nearly everywhere its gradient is zero."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return (x / (GAP / 2)).round() * (GAP / 2)


class GradientKiller(Purifier):
    """Hands the image on without its gradient."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return x.detach()


def chunk(view: View, threat: Threat) -> Problem:
    """Images in the middle of their classes, with a faint texture."""
    y = torch.arange(N) % CLASSES
    texture = torch.rand(N, 1, 6, 6, generator=torch.Generator().manual_seed(0)) - 0.5
    texture = texture - texture.mean((1, 2, 3), keepdim=True)
    x = ((y.view(-1, 1, 1, 1) + 0.5) * GAP + 0.5 * GAP * texture).clamp(0, 1)
    return Problem(view, x, y, tuple(range(N)), threat, seed=0)


def accuracy(problem: Problem, x: Tensor) -> float:
    """Percent right over fresh `score` draws of the defense itself."""
    noise = problem.stream("score").draws(SCORE_DRAWS)
    logits = Full(problem.view.defense).query(x, noise)
    return 100 * (logits.argmax(-1) == problem.y).double().mean().item()


def attacked(problem: Problem, attack: AutoAttack | PGD) -> float:
    """Robust accuracy in percent, after the check that every image has to pass."""
    x_adv = attack(problem).detach()
    problem.threat.check(x_adv, problem.x, problem.ids, "test")
    return accuracy(problem, x_adv)


def test_the_models_are_what_the_tests_take_them_for():
    model = Intensity()
    for threat, right in ((ROBUST, 100), (BROKEN, 0)):
        problem = chunk(Full(Defense(Purifier(), model)), threat)
        assert accuracy(problem, problem.x) == 100
        # The mean is all the model sees, so the two extreme images are the worst cases.
        answers = torch.stack([model((problem.x + s * threat.eps).clamp(0, 1)).argmax(1) for s in (-1, 1)])
        assert 100 * (answers == problem.y).all(0).double().mean() == right


def test_a_label_flipper_over_a_robust_model_keeps_its_ninety_percent():
    problem = chunk(Full(Flipper(Intensity(), 0.1)), ROBUST)
    robust = attacked(problem, AutoAttack("rand", draws=20))
    published = 100 * problem.published["as_published"].double().mean().item()
    assert 86 <= robust <= 94
    assert 65 <= published <= 77, "three single draws: 0.9 cubed is 73 %"
    first = Expectation(problem, 1, member=2).correct_once(
        problem.x
    )  # the draw by which the library drops clean images
    assert not problem.published["as_published"][~first].any()


@pytest.mark.parametrize("rate, most", [(0.1, 3), (0.3, 6)])
def test_a_label_flipper_does_not_save_a_model_without_robustness(rate, most):
    problem = chunk(Full(Flipper(Intensity(), rate)), BROKEN)
    assert accuracy(problem, problem.x) > 100 * (1 - rate) - 4
    # Half of AutoAttack's steps, for time: every image is over the edge after a few.
    robust = attacked(problem, AutoAttack("rand", draws=20, n_iter=50))
    assert robust <= most, "APGD-CE and APGD-DLR with EOT 20 and 50 steps"


@pytest.mark.parametrize("purifier", [Quantiser, GradientKiller])
def test_masked_gradients_do_not_survive_bpda(purifier):
    attack = PGD(steps=20, step_size="eps/8", start="zero")
    defense = Defense(purifier(), Intensity())
    seen = {view: attacked(chunk(view(defense), BROKEN), attack) for view in (Full, Bpda)}
    assert seen[Full] > 95, "the exact gradient is zero and says nothing: this is why bpda exists"
    assert seen[Bpda] <= 1
