"""The attacker who freezes the defense's noise: the same draws at every step, other ones where he has to be honest."""

import pytest
import torch
from torch import nn

from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.threat import Threat
from lgap_bench.cell.check import check
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.purifier.base import Purifier


class Heard(Purifier):
    """Adds a little noise and remembers the keys of every call."""

    randomized = True

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, noise, observed=None):
        self.calls.append(noise.keys)
        return x + 0.01 * noise.normal(x, "jitter")


class Coin(Purifier):
    """Turns the image's brightness round in half of all draws: which way is up hangs on the draw."""

    randomized = True

    def forward(self, x, noise, observed=None):
        return torch.where(noise.uniform(x[:, :1, :1, :1], "coin") < 0.5, 1 - x, x)


class Brightness(nn.Module):
    def forward(self, x):
        return torch.stack([x.mean((1, 2, 3)), torch.full((len(x),), 0.5, dtype=x.dtype)], 1)


def gradient_calls(kind, count, make_problem, smooth, images, **settings):
    purifier = Heard()
    problem = make_problem(smooth(), images(count), purifier=purifier)
    PGD(4, "eps/4", draws=3, noise=kind, keep="last", **settings)(problem)
    return purifier.calls, problem


@pytest.mark.parametrize("count", [1, 3, 8])
def test_fixed_noise_meets_the_same_draws_at_every_step_and_fresh_noise_never_twice(
    count, make_problem, smooth, images
):
    fixed, problem = gradient_calls("fixed", count, make_problem, smooth, images)
    fresh, _ = gradient_calls("fresh", count, make_problem, smooth, images)
    assert len(fixed) == len(fresh) == 4
    assert set(fixed) == {problem.stream("attack").draws(3, 0, 0).keys}
    assert len(set(fixed[0])) == 3 * count, "the draws of one step are different ones"
    assert len({key for call in fresh for key in call}) == 4 * 3 * count
    assert fresh[0] == fixed[0], "the first step is the same"


def test_restarts_freeze_other_draws_and_choices_are_made_on_draws_that_no_step_has_seen(make_problem, smooth, images):
    calls, problem = gradient_calls("fixed", 2, make_problem, smooth, images, restarts=2)
    used = {problem.stream("attack").draws(3, restart, 0).keys for restart in (0, 1)}
    assert used < set(calls)
    judged = {key for call in calls if call not in used for key in call}
    assert judged
    assert not judged & {key for call in used for key in call}

    purifier = Heard()
    problem = make_problem(smooth(), images(2), purifier=purifier)
    PGD(6, "eps/4", draws=3, noise="fixed")(problem)  # keep=best: leaving early and settling ask fresh draws
    frozen = set(problem.stream("attack").draws(3, 0, 0).keys)
    others = [set(call) for call in purifier.calls if not set(call) <= frozen]
    assert others
    assert all(not call & frozen for call in others)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_frozen_noise_climbs_one_function_where_fresh_noise_wanders(count, make_problem):
    x, y = torch.full((count, 3, 4, 4), 0.5, dtype=torch.float64), torch.zeros(count, dtype=torch.long)
    problem = make_problem(Brightness(), x, y, Coin(), threat=Threat("linf", 0.4))
    settings = dict(start="zero", loss="margin", keep="last")
    moved = {k: (PGD(16, 0.02, noise=k, **settings)(problem) - x)[:, 0, 0, 0].abs() for k in ("fixed", "fresh")}
    torch.testing.assert_close(moved["fixed"], torch.full((count,), 0.32, dtype=torch.float64))
    assert (moved["fresh"] < 0.3).all()


def test_fresh_is_the_default_and_anything_else_is_refused():
    assert PGD(1, 0.1).noise == "fresh"
    assert instantiate(resolved(["attack=full"]).attack).noise == "fresh"
    assert instantiate(resolved(["attack=full", "attack.noise=fixed"]).attack).noise == "fixed"
    with pytest.raises(ValueError, match=r"attack.noise=frozen is not in fresh \| fixed"):
        check(resolved(["attack=full", "attack.noise=frozen"]))
    with pytest.raises(ValueError, match="use fresh or fixed"):
        PGD(1, 0.1, noise="frozen")
