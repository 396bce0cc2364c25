"""torchattacks' attacks, CW, DeepFool and random noise: closed-form optima, honest means, and every refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import SIDE, Counting, Flicker, GradientKiller, Jitter, Linear, Poison, Shift

from lgap_bench.attack.carlini_wagner import CarliniWagner
from lgap_bench.attack.deepfool import DeepFool
from lgap_bench.attack.problem import Problem
from lgap_bench.attack.random_noise import RandomNoise
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.torchattack import CW, EOTPGD, AutoAttack, Square
from lgap_bench.attack.view import Blind, Bpda, Full, Query, View
from lgap_bench.purifier.base import Purifier
from lgap_bench.task.loss import margin

WIDE = {"linf": Threat("linf", 0.1), "l2": Threat("l2", 1.5)}
# name -> attack with few steps, its norms, the views that make sense
ATTACKS: dict[str, tuple[Any, tuple[str, ...], tuple[type[View], ...]]] = {
    "cw": (CarliniWagner(search=2, steps=8, draws=2, select_draws=3), ("l2",), (Blind, Bpda, Full)),
    "cw_torchattacks_c1": (CW(steps=12, learning_rate=0.05, draws=2, select_draws=3), ("l2",), (Blind, Bpda, Full)),
    "deepfool": (DeepFool(steps=6, draws=2, select_draws=3), ("l2",), (Blind, Bpda, Full)),
    "square": (Square(n_queries=25, draws=3, select_draws=3), ("linf", "l2"), (Blind, Query)),
    "eotpgd": (EOTPGD(steps=4, draws=2, select_draws=3), ("linf",), (Blind, Bpda, Full)),
    "random": (RandomNoise(tries=2, select_draws=3), ("linf", "l2"), (Blind, Query)),
}
CASES = [(name, norm, view) for name, (_, norms, views) in ATTACKS.items() for norm in norms for view in views]
GRADIENT = {"cw": CarliniWagner(search=2, steps=3, draws=2), "cw_torchattacks_c1": CW(steps=4, draws=2),
            "deepfool": DeepFool(steps=3, draws=2), "eotpgd": EOTPGD(steps=3, draws=2)}  # fmt: skip


@pytest.fixture
def toy(make_problem: Callable[..., Problem], images: Callable[..., Tensor]) -> Callable[..., Problem]:
    """`toy(size, norm, purifier, view, ...)`: a linear classifier's problem with a budget that reaches every boundary."""

    def make(size: int, norm: str, purifier: Purifier | None = None, view: type[View] = Full, **more: Any) -> Problem:
        model = more.pop("model", None) or Linear()
        x = more.pop("x", None)
        if x is None:  # 0.3 to 0.7 from the nearest class, and away from the walls of [0, 1]
            x = 0.25 + 0.5 * images(size, SIDE)
            away = model.weight[model(x).argmax(1)] - model.weight.mean(0)
            x = (x + 0.6 * (away / away.norm(dim=1, keepdim=True)).view_as(x)).detach()
        return make_problem(model, x, more.pop("y", None), purifier, view, more.pop("threat", WIDE[norm]), **more)

    return make


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("view", [Blind, Bpda, Full])
@pytest.mark.parametrize("attack, most", [(CW(steps=150), 1.08), (CarliniWagner(), 1.1), (DeepFool(), 1.021)])
def test_minimal_attacks_go_as_far_as_the_nearest_boundary(toy, attack, most, view, size):
    purifier, model = Shift(), Linear()
    problem = toy(size, "l2", purifier, view, model=model)
    seen = problem.x if view is Blind else purifier(problem.x, problem.stream("select").draws())
    problem = toy(size, "l2", purifier, view, model=model, y=model(seen).argmax(1))
    found = attack(problem)
    ratio = problem.threat.length(found - problem.x) / model.distance(seen, problem.y)
    assert (ratio > 0.999).all()
    assert (ratio < most).all(), ratio
    assert (margin(model(found - problem.x + seen), problem.y) >= 0).all()


@pytest.mark.parametrize("attack", [CW(steps=150), CarliniWagner(), DeepFool()])
def test_an_image_beyond_the_budget_ends_at_the_edge_of_the_ball(toy, attack):
    model = Linear()
    problem = toy(3, "l2", model=model)
    threat = Threat("l2", 0.5 * float(model.distance(problem.x, problem.y).min()))
    found = attack(toy(3, "l2", model=model, threat=threat))
    assert torch.allclose(threat.length(found - problem.x), torch.full((3,), threat.eps), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("view", [Blind, Bpda, Full])
@pytest.mark.parametrize("purifier", [Purifier, Jitter])
def test_eotpgd_reaches_the_corner_of_the_ball(toy, view, size, purifier):
    model = Linear(classes=2)  # of two classes the gradient's direction is the same everywhere
    problem = toy(size, "linf", purifier(), view, model=model, threat=Threat("linf", 0.02))
    away = model.weight[1 - problem.y] - model.weight[problem.y]
    corner = problem.x + 0.02 * away.sign().view_as(problem.x)
    assert torch.allclose(EOTPGD()(problem), corner, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("norm", WIDE)
@pytest.mark.parametrize("view", [Blind, Query])
@pytest.mark.parametrize("purifier", [Purifier, Jitter])
def test_few_queries_of_square_lower_the_margin_of_every_image(toy, norm, size, view, purifier):
    problem = toy(size, norm, purifier(), view)
    found = Square(n_queries=40, draws=4)(problem)
    problem.threat.check(found, problem.x, problem.ids, "test")
    model = problem.view.defense.classifier
    assert (margin(model(found), problem.y) > margin(model(problem.x), problem.y)).all()


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("purifier", [Purifier, Jitter])
@pytest.mark.parametrize("name, norm, view", CASES)
def test_images_stay_in_the_ball_and_nothing_global_changes(toy, name, norm, view, purifier, size):
    problem = toy(size, norm, purifier(), view, threat=Threat(norm, WIDE[norm].eps / 10))
    defense = problem.view.defense
    defense.classifier.part.train()  # so that a mode switched and "restored" for the whole model would show
    modes = [module.training for module in defense.modules()]
    clean, state = problem.x.clone(), torch.get_rng_state()
    found = ATTACKS[name][0](problem)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in defense.modules()] == modes
    assert torch.equal(problem.x, clean)
    assert found.shape == clean.shape
    assert found.dtype == clean.dtype
    assert not found.requires_grad
    problem.threat.check(found, problem.x, problem.ids, "test")
    moved = (found != clean).flatten(1).any(1)
    assert moved.all() or (name == "square" and purifier is Jitter), "a search in noise may find nothing"


@pytest.mark.parametrize("name, norm, view", CASES)
def test_a_resume_repeats_bitwise_and_another_seed_does_not(toy, name, norm, view):
    attack = ATTACKS[name][0]
    first = attack(toy(3, norm, Jitter(), view))
    torch.rand(5)
    assert torch.equal(attack(toy(3, norm, Jitter(), view)), first)
    drawn = name in ("cw", "square", "random", "eotpgd") or view is not Blind
    assert torch.equal(attack(toy(3, norm, Jitter(), view, seed=1)), first) == (not drawn)


@pytest.mark.parametrize("purifier", [Purifier, Jitter])
@pytest.mark.parametrize("attack, norm", [(ATTACKS["cw"][0], "l2"), (ATTACKS["cw_torchattacks_c1"][0], "l2"), (ATTACKS["deepfool"][0], "l2"),
                                          (EOTPGD(steps=4, random_start=False), "linf"), (RandomNoise(2), "l2")])  # fmt: skip
def test_an_image_does_not_depend_on_its_chunk(toy, attack, norm, purifier):
    problem = toy(8, norm, purifier())
    together = attack(problem)
    for i in (0, 5):
        alone = attack(toy(1, norm, purifier(), x=problem.x[i : i + 1], ids=[100 + i]))
        assert torch.allclose(alone, together[i : i + 1], atol=1e-4)


@pytest.mark.parametrize("name", GRADIENT)
def test_small_passes_change_rounding_only(toy, name):
    norm = ATTACKS[name][1][0]
    wide, narrow = (GRADIENT[name](toy(3, norm, Jitter(), max_rows=rows)) for rows in (512, 2))
    assert torch.allclose(wide, narrow, atol=1e-4)


def test_kappa_widens_the_margin_of_what_counts_as_found(toy):
    for kappa in (0.0, 0.5, 1.0):
        problem = toy(3, "l2")
        reached = margin(problem.view.defense.classifier(CW(kappa=kappa, steps=150, c=3)(problem)), problem.y)
        assert (reached > kappa - 1e-4).all()
        assert (reached < kappa + 0.3).all(), "no farther than asked"


def test_cw_does_not_mistake_logits_below_zero_for_zero(toy):
    plain, low = (CW(steps=100)(toy(3, "l2", model=Linear(bias=bias))) for bias in (0.0, -60.0))
    assert torch.allclose(plain, low, atol=1e-3)
    assert not torch.equal(low, toy(3, "l2").x)


def test_cw_moves_black_and_white_pixels(toy):
    problem = toy(2, "l2", x=torch.stack([torch.zeros(3, SIDE, SIDE), torch.ones(3, SIDE, SIDE)]))
    found = CW(steps=200, learning_rate=0.1)(problem)
    assert ((found - problem.x).abs() > 1e-3).float().mean() > 0.1


def test_cw_without_success_returns_its_last_iterate_not_the_clean_image(toy):
    problem = toy(3, "l2")
    found, model = CW(c=0.05, steps=20, learning_rate=0.003)(problem), Linear()
    assert (margin(model(found), problem.y) < 0).all(), "a test in which it succeeds would say nothing"
    assert (margin(model(found), problem.y) > margin(model(problem.x), problem.y)).all()


@pytest.mark.parametrize("draws", [1, 3])
def test_a_rising_cost_does_not_end_cw_and_no_draw_comes_twice(toy, draws):
    purifier = Counting(True)
    CW(c=0.001, steps=40, learning_rate=1.0, draws=draws)(toy(2, "l2", purifier))  # too long steps: the cost goes up
    assert len(set(purifier.keys)) == len(purifier.keys) == 2 * 40 * draws


@pytest.mark.parametrize("attack, least", [
    (DeepFool(select_draws=5), 8), (CarliniWagner(kappa=1), 8), (CW(kappa=1, steps=60, learning_rate=0.02), 8), (Square(n_queries=100, draws=20), 6)
])  # fmt: skip
def test_lucky_draws_end_no_attack(toy, attack, least):
    """The library leaves an image alone once a draw is wrong, and with fresh draws at every query Square breaks none."""
    square = isinstance(attack, Square)
    problem = toy(8, "linf" if square else "l2", Flicker(), Query if square else Full,
                  threat=Threat("linf", 0.3) if square else WIDE["l2"])  # fmt: skip
    found = attack(problem)
    assert (margin(Linear()(found), problem.y) > 0).sum() >= least, "by the draws that are not flipped"


@pytest.mark.parametrize("randomized", [False, True])
def test_eotpgd_takes_its_draws_only_where_they_differ_and_never_one_twice(toy, randomized):
    purifier = Counting(randomized)
    EOTPGD(steps=4, draws=3)(toy(2, "linf", purifier))
    assert len(purifier.keys) == 2 * 4 * (3 if randomized else 1)
    assert len(set(purifier.keys)) == len(purifier.keys)


@pytest.mark.parametrize("name", GRADIENT)
def test_a_view_without_gradient_gives_finite_images(toy, name):
    problem = toy(3, ATTACKS[name][1][0], GradientKiller())
    problem.threat.check(GRADIENT[name](problem), problem.x, problem.ids, "test")


@pytest.mark.parametrize("randomized", [False, True])
@pytest.mark.parametrize("name", GRADIENT)
def test_a_gradient_that_is_not_a_number_is_an_error(toy, name, randomized):
    problem = toy(3, ATTACKS[name][1][0], Poison(randomized))
    with pytest.raises(FloatingPointError, match="gradient of sample 100"):
        GRADIENT[name](problem)


@pytest.mark.parametrize("randomized", [False, True])
def test_logits_that_are_not_numbers_end_the_search_with_an_error(toy, randomized):
    with pytest.raises(FloatingPointError, match="logits of sample 100"):
        Square(n_queries=3, draws=2)(toy(3, "linf", Poison(randomized, forward_too=True), Query))


def test_a_query_answers_and_grants_no_gradient(toy):
    problem = toy(2, "linf", Jitter(), Query)
    noise = problem.stream("attack").draws()
    logits = problem.view.logits(problem.x.clone().requires_grad_(True), noise)
    assert not logits.requires_grad
    assert torch.equal(logits, problem.view.query(problem.x, noise)[0])
    assert problem.view.randomized


@pytest.mark.parametrize("attack, norm, view, words", [
    (CarliniWagner(), "linf", Full, "attack=cw needs threat.norm=l2, got linf"),
    (CW(), "linf", Full, "attack=cw_torchattacks_c1 needs threat.norm=l2, got linf"),
    (DeepFool(), "linf", Full, "attack=deepfool needs threat.norm=l2"),
    (EOTPGD(), "l2", Full, "attack=eotpgd needs threat.norm=linf"),
    (CarliniWagner(), "l2", Query, "attack=cw needs a gradient, and view=query has none"),
])  # fmt: skip
def test_problems_built_in_python_are_refused_as_well(toy, attack, norm, view, words):
    with pytest.raises(ValueError, match=words):
        attack(toy(1, norm, view=view))


def test_the_librarys_autoattack_is_refused_with_its_reason():
    with pytest.raises(ValueError, match="10 steps instead of 100"):
        AutoAttack(version="standard")
