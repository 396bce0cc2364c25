"""PGD under randomized defenses: who leaves, whose draws decide, and what no draw may change."""

from __future__ import annotations

import pytest
import torch
from test_pgd import Counting, Jitter, Mean, Valley, zeros
from torch import Tensor

from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.select import wrongness
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import Blind
from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier


class Unlucky(Purifier):
    """Turns an image black in a share of the draws; in all of them for the ids given."""

    randomized = True

    def __init__(self, share: float, lost: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.share, self.lost = share, lost

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        black = noise.uniform(x.flatten(1)[:, :1], "unlucky").squeeze(1) < self.share
        black |= torch.tensor([i in self.lost for i in noise.ids])
        return torch.where(black.view(-1, 1, 1, 1), x - x.detach(), x)


def test_a_broken_sample_leaves_at_once_when_the_view_is_deterministic(make_problem):
    """Means 0.48 (wrong already), 0.515 (wrong after two steps of 0.01), 0.555 (after six), 0.8 (never)."""
    x = torch.tensor([0.48, 0.515, 0.555, 0.8]).view(4, 1, 1, 1).expand(4, 3, 4, 4).contiguous()
    classifier = Counting(Mean())
    problem = make_problem(classifier, x, y=zeros(4), threat=Threat("linf", 0.1))
    found = PGD(8, 0.01, start="zero")(problem)
    assert classifier.graded == [4, 3, 3, 2, 2, 2, 2, 1, 1]
    moved = (found - x).flatten(1).abs().amax(1)
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.02, 0.06, 0.08]), atol=1e-6, rtol=0)

    classifier.graded.clear()
    PGD(8, 0.01, start="zero", restarts=3)(problem)
    assert classifier.graded == [4, 3, 3, 2, 2, 2, 2, 1, 1] + [1] * 9 * 2, "later restarts attack the robust one only"


def test_broken_samples_stay_when_the_last_iterate_is_asked_for(make_problem):
    x = torch.full((2, 3, 4, 4), 0.48)
    classifier = Counting(Mean())
    PGD(5, 0.01, start="zero", keep="last")(make_problem(classifier, x, y=zeros(2), threat=Threat("linf", 0.1)))
    assert classifier.graded == [2] * 5


@pytest.mark.parametrize("share, draws", [(0.1, 1), (0.3, 1), (0.3, 2)])
def test_an_unlucky_draw_does_not_let_a_robust_sample_leave(share, draws, make_problem):
    x = torch.full((8, 3, 4, 4), 0.9)
    classifier = Counting(Mean())
    problem = make_problem(classifier, x, y=zeros(8), purifier=Unlucky(share), threat=Threat("linf", 0.1))
    wrong = problem.view.query(x, problem.stream("attack").draws(100)).argmax(-1).float().mean().item()
    assert abs(wrong - share) < 0.05, "the defense is not as unlucky as it should be"
    classifier.graded.clear()
    found = PGD(20, 0.01, start="zero", draws=draws)(problem)
    assert classifier.graded == [8 * draws] * 20, "a sample left after an unlucky draw"
    assert (found - x).abs().amax(dim=(1, 2, 3)).min() > 0.05, "an image was returned (almost) unmoved"


def test_a_sample_that_is_fooled_on_fresh_draws_too_leaves(make_problem):
    x = torch.full((4, 3, 4, 4), 0.9)
    classifier = Counting(Mean())
    purifier = Unlucky(0.1, lost=(101, 103))
    problem = make_problem(classifier, x, y=zeros(4), purifier=purifier, threat=Threat("linf", 0.1))
    classifier.graded.clear()
    PGD(10, 0.01, start="zero")(problem)
    assert classifier.graded == [4] + [2] * 9


def test_the_confirmation_does_not_look_at_the_attacks_own_draws(make_problem):
    """A defense that loses exactly on the attack's draws: every gradient sees it fooled, no fresh draw does."""
    x = torch.full((3, 3, 4, 4), 0.9)

    class Overfitted(Purifier):
        randomized = True
        keys: frozenset[int] = frozenset()

        def forward(self, x, noise, observed=None):
            black = torch.tensor([key in self.keys for key in noise.keys])
            return torch.where(black.view(-1, 1, 1, 1), x - x.detach(), x)

    classifier, purifier = Counting(Mean()), Overfitted()
    problem = make_problem(classifier, x, y=zeros(3), purifier=purifier, threat=Threat("linf", 0.1))
    stream = problem.stream("attack")
    purifier.keys = frozenset(key for step in range(12) for key in stream.draws(2, 0, step).keys)
    classifier.graded.clear()
    PGD(12, 0.01, start="zero", draws=2)(problem)
    assert classifier.graded == [6] * 12


def test_draws_are_not_wasted_on_a_deterministic_view(images, smooth, make_problem):
    for settings in (dict(), dict(purifier=Jitter(), view=Blind)):
        classifier = Counting(smooth())
        problem = make_problem(classifier, images(3), threat=Threat("linf", 1e-4), **settings)
        PGD(2, "eps/2", draws=10)(problem)
        assert classifier.graded[-1] == 3
        assert max(classifier.graded) == 3


def test_the_iterate_of_highest_loss_is_kept_not_the_last(make_problem):
    """From 0.5 steps of 0.04 lead to 0.54, 0.5, 0.54, ...; from 0.535 to 0.495, 0.535, ..."""
    x = torch.tensor([0.5, 0.52, 0.535]).view(3, 1, 1, 1).expand(3, 3, 4, 4).contiguous()
    problem = make_problem(Valley(), x, threat=Threat("linf", 0.1))
    last, best = (PGD(7, 0.04, start="zero", keep=keep)(problem)[:, 0, 0, 0] for keep in ("last", "best"))
    torch.testing.assert_close(last, torch.tensor([0.54, 0.48, 0.495]))
    torch.testing.assert_close(best, torch.tensor([0.5, 0.52, 0.495]))


def test_between_best_and_last_select_draws_decide(images, make_problem):
    x = 0.5 + 0.05 * (images(8, 4) - 0.5)
    problem = make_problem(Valley(), x, threat=Threat("linf", 0.1), purifier=Jitter())
    last, best = (PGD(5, 0.04, start="zero", keep=keep)(problem) for keep in ("last", "best"))
    noise = problem.stream("select").draws(4, 0)
    harm = [wrongness(problem, each, noise) for each in (last, best)]
    assert (harm[1] >= harm[0]).all()
    kept_last = (best == last).flatten(1).all(1)
    assert kept_last.any(), "the last iterate is never chosen: the test shows nothing"
    assert not kept_last.all(), "the last iterate is always chosen: the test shows nothing"
