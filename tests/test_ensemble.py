"""The ensemble: the worst member's image per sample, judged on draws that no member saw; who is spared, and who hides what."""

from __future__ import annotations

import pytest
import torch
from pixels import noise_of, tiny
from torch import Tensor
from toys import Counting, Flicker, Jitter, Linear

from lgap_bench.attack import select
from lgap_bench.attack.detached import Detached
from lgap_bench.attack.ensemble import Ensemble
from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.view import Bpda, Full
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.purifier.guidance import ClassifierConfidence
from lgap_bench.purifier.sampler import ReverseSDE

STRONG, WEAK = PGD(10, "eps/2", draws=2), PGD(1, "eps/100", start="zero", draws=2)


class Still:
    """An attack that moves nothing, and remembers whom it met and how."""

    def __init__(self) -> None:
        self.met: list[tuple[int, ...]] = []
        self.views: list[type] = []

    def __call__(self, problem) -> Tensor:
        self.met.append(problem.ids)
        self.views.append(type(problem.view))
        return problem.x.clone()


class Half:
    """Hands the negative of every image of even id to the defense, which is wrong there; the others stay as they are."""

    def __call__(self, problem) -> Tensor:
        even = torch.tensor([i % 2 == 0 for i in problem.ids]).view(-1, 1, 1, 1)
        return torch.where(even, 1 - problem.x, problem.x)


@pytest.fixture
def toy(images, make_problem):
    def make(size, purifier=None, **given):
        return make_problem(Linear(10).requires_grad_(False), images(size, 8), purifier=purifier or Jitter(), **given)

    return make


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("purifier", [Jitter, Purifier])
def test_no_member_does_more_damage_than_the_ensemble(size, purifier, toy):
    problem = toy(size, purifier())
    found = Ensemble({"weak": WEAK, "strong": STRONG, "still": Still()})(problem)
    problem.threat.check(found, problem.x, problem.ids, "ensemble")
    noise = problem.stream("select").draws(10 if problem.view.randomized else 1, 0, -4)
    worst = select.wrongness(problem, found, noise)
    for member in (WEAK, STRONG):
        assert (worst >= select.wrongness(problem, member(problem), noise)).all()
    assert (problem.published["found_by_strong"].float().mean()) > 0.5
    found_by = [flags.int() for name, flags in problem.published.items() if name.startswith("found_by_")]
    assert sum(found_by).tolist() == [1] * size


@pytest.mark.parametrize(
    "confirm, met", [(32, [(100, 101, 102, 103, 104), (101, 103)]), (0, [tuple(range(100, 105))] * 2)]
)
def test_a_broken_sample_is_spared_the_members_that_follow(confirm, met, toy):
    first, second = Still(), Still()
    members = {"first": first, "half": Half(), "second": second}
    problem = toy(5)
    Ensemble(members, confirm_draws=confirm)(problem)
    assert [*first.met, *second.met] == met
    assert problem.published["found_by_half"].tolist() == [True, False, True, False, True]


def test_a_deterministic_view_loses_a_sample_at_its_first_success(toy):
    second = Still()
    Ensemble({"half": Half(), "second": second})(toy(4, Purifier()))
    assert second.met == [(101, 103)]


def test_a_lucky_draw_spares_nobody(toy):
    """Two draws of three see the image as it is: it is wrong now and then, and never for certain."""
    second = Still()
    Ensemble({"first": Still(), "second": second})(toy(8, Flicker()))
    assert second.met == [tuple(range(100, 108))]


def test_members_are_judged_on_draws_that_none_of_them_saw(toy, monkeypatch):
    purifier = Counting(randomized=True)
    problem = toy(3, purifier)
    judged: list[int] = []
    plain = select.wrongness

    def told(problem, x, noise):
        judged.extend(noise.keys)
        return plain(problem, x, noise)

    seen: list[int] = []
    forward = Counting.forward

    def all_rows(self, x, noise, observed=None):
        seen.extend(noise.keys)
        return forward(self, x, noise, observed)

    monkeypatch.setattr(Counting, "forward", all_rows)
    members = {"pgd": PGD(3, "eps/2", draws=2), "both": PGD(3, "eps/2", draws=2, start="both", restarts=2)}
    for attack in members.values():
        attack(problem)
    own = set(seen)
    monkeypatch.setattr(select, "wrongness", told)
    Ensemble(members)(problem)
    used = judged[-3 * 10 :]  # the last comparison is the ensemble's own
    assert len(set(used)) == 30
    assert not own & set(used)


@pytest.fixture
def guided(smooth):
    """COUP on a tiny network; without its guidance if asked."""

    def make(weight=1.0):
        guidance = None if weight is None else ClassifierConfidence(smooth(8, 10).double(), weight)
        return DiffPure(tiny(), ReverseSDE(0.05), 0.05, None, guidance)

    return make


@pytest.mark.parametrize(
    "view, weight, met",
    [(Full, 1.0, [Detached]), (Full, None, []), (Full, 0.0, []), (Bpda, 1.0, []), (Detached, 1.0, [])],
)
def test_hidden_members_meet_guided_purifiers_under_the_exact_gradient_alone(
    view, weight, met, guided, smooth, images, make_problem
):
    x, hidden = images(2, 8, dtype=torch.float64), Still()
    problem = make_problem(smooth(8, 10).double(), x, purifier=guided(weight), view=view)
    ensemble = Ensemble({"still": Still()}, {"hidden": hidden}, select_draws=2)
    ensemble(problem)
    assert hidden.views == met


def test_a_guidance_that_is_detached_already_is_not_hidden_again(guided, smooth, images, make_problem):
    x, hidden, purifier = images(2, 8, dtype=torch.float64), Still(), guided()
    purifier.guidance.detach_guidance = True
    problem = make_problem(smooth(8, 10).double(), x, purifier=purifier)
    Ensemble({"still": Still()}, {"hidden": hidden}, select_draws=2)(problem)
    assert hidden.views == []


def test_a_hidden_member_follows_the_gradient_without_the_guidance(guided, smooth, images, make_problem):
    x, purifier = images(2, 8, dtype=torch.float64), guided(300.0)
    problem = make_problem(smooth(8, 10).double(), x, purifier=purifier)
    gradients: list[Tensor] = []

    class Looks(Still):
        def __call__(self, problem) -> Tensor:
            leaf = problem.x.clone().requires_grad_()
            out = problem.view.logits(leaf, noise_of(2)).sum()
            gradients.append(torch.autograd.grad(out, leaf)[0])
            return super().__call__(problem)

    Ensemble({"seen": Looks()}, {"hidden": Looks()}, select_draws=2)(problem)
    seen, hidden = gradients
    leaf = x.clone().requires_grad_()
    logits = Detached(problem.view.defense).logits(leaf, noise_of(2))
    (expected,) = torch.autograd.grad(logits.sum(), leaf)
    torch.testing.assert_close(hidden, expected, rtol=1e-10, atol=1e-12)
    assert (seen - hidden).abs().max() > 1e-3 * seen.abs().max()


@pytest.mark.parametrize(
    "members, hidden, words",
    [({}, {}, "attack.members is empty"), ({"a": WEAK}, {"a": WEAK}, "two members are called a")],
)
def test_members_without_a_name_of_their_own_are_refused(members, hidden, words):
    with pytest.raises(ValueError, match=words):
        Ensemble(members, hidden)
