"""AutoAttack on randomized views: means over draws, sound bookkeeping, who leaves and what the others notice."""

from __future__ import annotations

import pytest
import torch
from test_autoattack import SHORT, THREATS, Jitter
from torch import Tensor

from lgap_bench.attack import expectation
from lgap_bench.attack.autoattack import AutoAttack, attack_every_sample, build_library, rebuilt_apgd
from lgap_bench.attack.expectation import Expectation
from lgap_bench.attack.select import confirmed_wrong
from lgap_bench.attack.threat import Threat
from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier
from lgap_bench.runtime import libraries


class Pretender(Purifier):
    """Says that it is randomized and draws nothing, so that means over draws have a known answer."""

    randomized = True


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("norm", THREATS)
def test_means_over_draws_drive_the_members_as_the_library_would(ten, images, make_problem, norm, size):
    """Where the draws are all alike, each member's inner loop has to walk the library's own path."""
    y = ten(images(size)).argmax(1)
    kept = THREATS[norm]
    tiny = Threat(norm, kept.eps / 20)  # nothing breaks: Square's early end, which we switch off, never comes
    for name, threat in (("ce", kept), ("dlr", kept), ("square", tiny), ("fab", kept)):
        problem = make_problem(ten, images(size), y, Pretender(), threat=threat)
        library = build_library(problem, ["square"], 10, SHORT)
        at, again = Expectation(problem, 2, 0), Expectation(problem, 2, 0)
        library.fab.device = None
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            if name in ("ce", "dlr"):
                plain, ours = rebuilt_apgd(library.apgd, 10), rebuilt_apgd(library.apgd, 10, at)
                plain.loss = ours.loss = name
                plain.init_hyperparam(problem.x)
                expected = plain.attack_single_run(problem.x, y, x_init=again.start())[0]
                (run,) = expectation.apgd(ours, at)
            elif name == "square":
                torch.manual_seed(5)
                library.square.init_hyperparam(problem.x)
                expected = library.square.attack_single_run(problem.x, y)[1]
                torch.manual_seed(5)
                (run,) = expectation.square(library.square, at)
            else:
                library.fab.target_class = 2
                expected = library.fab.attack_single_run(problem.x, y, is_targeted=True)
                run = next(expectation.fab_targeted(library.fab, at))
                inside = threat.length(expected - problem.x) <= threat.eps
                assert torch.allclose(run.returned, expected, atol=1e-6)
                assert torch.equal(run.fooled, inside & (ten(expected).argmax(1) != y))
                expected = threat.project(expected, problem.x)
        # Signs and normalised steps amplify float32 rounding: a gradient that is nearly zero may turn over in a pixel.
        assert ((run.candidates[0] - expected).abs() < 1e-4).float().mean() > 0.99, name


def test_a_randomized_view_attacks_also_what_one_draw_calls_wrong(ten, images, make_problem):
    """A sample that is wrong from the start is moved too: the library would hand it back untouched."""
    x = images(3)
    y = (ten(x).argmax(1) + 1) % 10
    problem = make_problem(ten, x, y, Jitter(), threat=THREATS["linf"])
    found = AutoAttack("rand", draws=2, n_iter=5)(problem)
    assert (found != x).flatten(1).any(1).all()
    assert not problem.published["as_published"].any()


def test_members_look_at_no_single_draw_on_a_randomized_view(ten, images, make_problem):
    x = images(3)
    y = (ten(x).argmax(1) + torch.tensor([0, 1, 2])) % 10  # two are wrong from the start
    problem = make_problem(ten, x, y, Jitter(), threat=Threat("linf", 32 / 255))
    library = build_library(problem, ["apgd-t", "square"], 10, SHORT)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        at = Expectation(problem, 2, 0)
        assert torch.equal(at.logits_label_first(x).argmax(1), y), (
            "targets are counted from the label down, so it is never one"
        )
        at.calls = 0
        (run,) = expectation.square(library.square, at)
        assert run.fooled.all()
        # One start, n_queries steps and the closing draw: a fooled sample goes on to a better mean.
        assert at.calls == 1 + SHORT.n_queries + 1
        at.calls = 0
        list(expectation.apgd(rebuilt_apgd(library.apgd, SHORT.n_iter, at), at))
        assert at.calls == 1 + 1 + SHORT.n_iter, "the start's noise, its gradient, and one gradient per step"


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("members", [["apgd-ce", "apgd-dlr"], ["apgd-t"], ["fab-t", "apgd-ce"]])
def test_a_broken_sample_is_spared_further_runs_and_the_others_never_notice(
    ten, images, make_problem, monkeypatch, members, size
):
    """Square is left out: its squares are the chunk's."""
    y = ten(images(size)).argmax(1)
    y[0] = (y[0] + 1) % 10  # broken before the first step

    def attack(confirm_draws: int) -> tuple[Tensor, int]:
        problem = make_problem(ten, images(size), y, Jitter(), threat=THREATS["linf"])
        rows, logits = [], problem.view.logits
        problem.view.logits = lambda x, *rest: (rows.append(len(x) * x.requires_grad), logits(x, *rest))[1]
        settings = AutoAttack("standard", draws=2, n_iter=6, select_draws=2, confirm_draws=confirm_draws)
        library = build_library(problem, members, 10, settings)
        with libraries.fenced(), torch.no_grad():
            found = attack_every_sample(problem, library, settings)
        assert not problem.published["as_published"][0]
        return found, sum(rows)

    gone: set[int] = set()

    def noted(*given) -> list[int]:
        found = confirmed_wrong(*given)
        gone.update(found)
        return found

    monkeypatch.setattr("lgap_bench.attack.autoattack.confirmed_wrong", noted)
    never, all_ = attack(0)
    assert not gone
    spared, fewer = attack(32)
    assert fewer < all_
    assert 0 in gone
    assert size < 8 or len(gone) < size, "a test in which all leave would say little"
    for row in set(range(size)) - gone:
        assert torch.equal(spared[row], never[row]), "who leaves must not change what the others meet"


def test_the_record_names_the_member_that_did_the_damage(ten, images, make_problem):
    """Cross-entropy of so steep a model has no gradient in float32: beyond its random start, only DLR's ratio gets anywhere."""

    class Steep(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1e5 * ten(x)

    x = images(8)
    problem = make_problem(Steep(), x, ten(x).argmax(1), Jitter(), threat=Threat("linf", 64 / 255))
    AutoAttack("rand", draws=2, n_iter=10, confirm_draws=0)(problem)
    by_ce, by_dlr = (problem.published[f"found_by_{name}"] for name in ("apgd-ce", "apgd-dlr"))
    assert torch.equal(by_ce, ~by_dlr), "every sample has one finder"
    first, second = ten(x).topk(2).values.T
    assert by_dlr.tolist() == (first - second > 0.2).tolist(), "a random start breaks what is nearly even"


@pytest.mark.parametrize("lucky", [0, 5, 31])
def test_one_right_draw_in_thirty_two_keeps_a_sample_in_the_attack(ten, images, make_problem, lucky):
    """Purified right on draw `lucky` alone, whichever look that falls into."""
    x = images(8)
    problem = make_problem(ten, x, ten(x).argmax(1))
    right = set(problem.stream("select").draws(1, 3, 1, first=lucky).keys)

    class Once(Purifier):
        randomized = True

        def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
            chosen = torch.tensor([key in right for key in noise.keys]).view(-1, 1, 1, 1)
            return torch.where(chosen, x, 1 - x)

    problem = make_problem(ten, x, problem.y, Once())
    wrong = [i for i, bad in enumerate((ten(1 - x).argmax(1) != problem.y).tolist()) if bad]
    assert wrong
    assert confirmed_wrong(problem, x, wrong, 32, 3, 1) == []
    assert confirmed_wrong(problem, x, wrong, 32, 3, 2) == wrong, "other draws, none of them right"
    assert confirmed_wrong(problem, x, wrong, 0, 3, 2) == [], "without draws nobody leaves"


def test_noise_belongs_to_the_sample_not_to_the_chunk(ten, images, make_problem):
    attack = AutoAttack("rand", draws=3, n_iter=5)
    together = attack(make_problem(ten, images(8), purifier=Jitter(), threat=THREATS["l2"]))
    for i in (0, 5):
        alone = make_problem(ten, images(8)[i : i + 1], purifier=Jitter(), threat=THREATS["l2"], ids=[100 + i])
        assert torch.allclose(attack(alone), together[i : i + 1], atol=1e-5)
    assert torch.equal(together, attack(make_problem(ten, images(8), purifier=Jitter(), threat=THREATS["l2"])))
    other = attack(make_problem(ten, images(8), purifier=Jitter(), threat=THREATS["l2"], seed=1))
    assert not torch.allclose(together, other, atol=1e-3)


def test_no_step_and_no_member_sees_noise_twice(ten, images, make_problem):
    problem = make_problem(ten, images(3), purifier=Jitter())
    members = Expectation(problem, 2, 0), Expectation(problem, 2, 1)
    keys = [key for at in members for _ in range(3) for key in at.noise(2).keys]
    assert len(set(keys)) == len(keys) == 2 * 3 * 2 * 3
