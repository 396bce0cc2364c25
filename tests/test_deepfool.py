"""DeepFool and CW on the miniature's own classifier, and what DeepFool does where the textbook case ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from toys import SIDE, Counting, Linear

from lgap_bench.attack.carlini_wagner import CarliniWagner, Search
from lgap_bench.attack.deepfool import DeepFool
from lgap_bench.attack.problem import Problem
from lgap_bench.attack.threat import Threat
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.task.loss import margin


@pytest.fixture(scope="module")
def eight() -> tuple[torch.nn.Module, Tensor, Tensor]:
    """The undefended classifier and eight digits that it knows."""
    cell = resolved(["purifier=none", "attack=pgd"])
    model, data = instantiate(cell.classifier).eval(), instantiate(cell.dataset)
    return model, data.images[:8], model(data.images[:8]).argmax(1)


@pytest.mark.parametrize("attack", [DeepFool(), CarliniWagner(search=2, steps=60)])
def test_every_undefended_digit_is_wrong_within_l2_3(eight, make_problem, attack):
    """The library's DeepFool leaves 28 of 50 right, its CW all; PGD none (docs/trust.md)."""
    model, x, y = eight
    problem = make_problem(model, x, y, threat=Threat("l2", 3.0))
    assert (margin(model(attack(problem)), y) > 0).all()


def test_the_overshoot_stretches_the_sum_of_steps(eight, make_problem):
    """A perturbation found is at most so much longer than one that only just fails."""
    model, x, y = eight
    problem = make_problem(model, x[:3], y[:3], threat=Threat("l2", 30.0))
    found = DeepFool(overshoot=0.02).minimum(problem)
    assert (margin(model(found), y[:3]) > 0).all()
    assert (margin(model(x[:3] + 0.9 * (found - x[:3])), y[:3]) < 0).all(), "nine tenths of the way is not there yet"


def test_more_candidates_never_make_a_linear_minimum_longer(images: Callable[..., Tensor], make_problem):
    model, x = Linear(), images(8, SIDE)
    lengths = []
    for candidates in (1, 3, 30):
        problem: Problem = make_problem(model, x, threat=Threat("l2", 30.0))
        lengths.append((DeepFool(candidates=candidates).minimum(problem) - x).flatten(1).norm(dim=1))
    assert (lengths[1] <= lengths[0] + 1e-5).all()
    assert torch.equal(lengths[1], lengths[2]), "there are only three other classes"


def test_no_draw_of_deepfool_comes_twice(images, make_problem):
    purifier = Counting(True)
    model, x = Linear(), images(3, SIDE)
    problem = make_problem(model, x, purifier=purifier, threat=Threat("l2", 30.0))
    DeepFool(steps=4, draws=3, select_draws=2).minimum(problem)
    assert purifier.keys
    assert len(set(purifier.keys)) == len(purifier.keys)


def test_the_search_for_c_grows_until_success_and_then_halves():
    c = Search(torch.tensor([1.0, 1.0]))
    met = [c.value.tolist()]
    for success in ([True, False], [False, False], [False, True], [True, False]):
        c.next(torch.tensor(success))
        met.append(c.value.tolist())
    assert [first for first, _ in met] == [1, 0.5, 0.75, 0.875, 0.8125]
    assert [second for _, second in met] == [1, 10, 100, 55, 77.5]
