"""Balls, projections, steps and the check of attacked images."""

from __future__ import annotations

import pytest
import torch

from lgap_bench.attack.threat import Threat
from lgap_bench.cell.values import fraction
from lgap_bench.noise import Stream

THREATS = [Threat("linf", 8 / 255), Threat("l2", 0.5)]


def noise_of(rows: int, seed: int = 0):
    return Stream(seed, "attack", tuple(range(rows))).draws()


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("threat", THREATS, ids=["linf", "l2"])
def test_projection_lands_in_ball_and_box_and_leaves_inner_points_alone(threat, batch, images):
    x = images(batch).clamp(0.25, 0.75)
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    near = x + threat.ascend(torch.ones_like(x), 0.9 * threat.eps)
    there = threat.project(far, x)
    threat.check(there, x, tuple(range(batch)), "test")
    assert threat.length(there - x).min() > 0.99 * threat.eps, "a point far outside is projected onto the surface"
    torch.testing.assert_close(threat.project(there, x), there, atol=1e-6, rtol=0)
    torch.testing.assert_close(threat.project(near, x), near, atol=1e-6, rtol=0)


@pytest.mark.parametrize("threat", THREATS, ids=["linf", "l2"])
def test_projection_is_the_nearest_point_of_the_ball(threat, images):
    """Away from the walls of [0, 1]: no random point of the ball is nearer."""
    x = images(1).clamp(0.4, 0.6)
    far = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    nearest = (threat.project(far, x) - far).norm()
    assert all((threat.random(x, noise_of(1, s)) - far).norm() >= nearest for s in range(20))


@pytest.mark.parametrize("threat", THREATS, ids=["linf", "l2"])
def test_at_the_walls_the_result_stays_inside_the_ball(threat, images):
    x = images(3).round()
    there = threat.project(x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), x)
    threat.check(there, x, (0, 1, 2), "test")
    threat.check(threat.random(x, noise_of(3)), x, (0, 1, 2), "test")


@pytest.mark.parametrize("threat", THREATS, ids=["linf", "l2"])
def test_the_step_has_its_length_and_raises_a_linear_function_most(threat, images):
    gradient = images(3) - 0.5
    step = threat.ascend(gradient, 0.1)
    torch.testing.assert_close(threat.length(step), torch.full((3,), 0.1))
    others = torch.randn(50, *gradient.shape, generator=torch.Generator().manual_seed(0))
    gain = (step * gradient).flatten(1).sum(1)
    assert all(((threat.ascend(other, 0.1) * gradient).flatten(1).sum(1) < gain).all() for other in others)


@pytest.mark.parametrize("threat", THREATS, ids=["linf", "l2"])
def test_no_gradient_is_no_step(threat):
    assert torch.equal(threat.ascend(torch.zeros(2, 3, 4, 4), 0.1), torch.zeros(2, 3, 4, 4))


def test_random_starts_fill_the_ball_evenly():
    x = torch.full((4000, 1, 1, 3), 0.5)
    linf = Threat("linf", 0.1).random(x, noise_of(4000)) - x
    assert linf.abs().max() <= 0.1 + 1e-6
    assert (linf.var() - 0.1**2 / 3).abs() < 2e-4
    l2 = Threat("l2", 0.1).random(x, noise_of(4000)) - x
    radius = l2.flatten(1).norm(dim=1) / 0.1
    assert radius.max() <= 1 + 1e-5
    assert (radius.pow(3).mean() - 0.5).abs() < 0.02, "in three dimensions radius^3 is uniform"
    assert l2.mean(0).abs().max() < 3e-3


@pytest.mark.parametrize("threat", THREATS, ids=["linf", "l2"])
def test_a_random_start_belongs_to_its_sample(threat, images):
    x = images(4)
    together = threat.random(x, noise_of(4))
    alone = threat.random(x[2:3], Stream(0, "attack", (2,)).draws())
    torch.testing.assert_close(alone[0], together[2], atol=1e-6, rtol=0)
    assert not torch.equal(threat.random(x, noise_of(4, seed=1)), together)


BROKEN = {
    "leaves the linf ball": ("linf", lambda x: x + 0.04),
    "leaves the l2 ball": ("l2", lambda x: x + 0.02),
    "leaves .0, 1.": ("linf", lambda x: x.clamp(max=0) - 2e-6),
    "is not finite": ("linf", lambda x: x + float("nan")),
}


@pytest.mark.parametrize("problem", BROKEN)
def test_an_image_that_breaks_the_rules_is_named_with_its_attack(problem):
    norm, breaking = BROKEN[problem]
    threat = next(each for each in THREATS if each.norm == norm)
    x = torch.zeros(3, 3, 16, 16)
    bad = x.clone()
    bad[1] = breaking(x[1])
    with pytest.raises(ValueError, match=f"attack=pgd: the image of sample 12 {problem}") as caught:
        threat.check(bad, x, (11, 12, 13), "pgd")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rounding_at_the_edge_passes_the_check(norm):
    threat, x = Threat(norm, 8 / 255), torch.full((1, 3, 4, 4), 0.5)
    edge = x + threat.ascend(torch.ones_like(x), 8 / 255)
    threat.check(edge, x, (0,), "test")
    with pytest.raises(ValueError, match="leaves"):
        threat.check(x + (edge - x) * 1.001, x, (0,), "test")


@pytest.mark.parametrize(
    "norm, eps, message",
    [
        ("l1", 0.1, "threat.norm=l1 is not known: use linf or l2"),
        ("linf", 8, r"threat.eps=8 is not in \(0, 1\]: write 8/255"),
        ("linf", 0, "threat.eps=0 is not"),
        ("linf", "-8/255", r"is not in \(0, 1\]"),
        ("l2", -0.5, "threat.eps=-0.5 is not"),
        ("linf", float("nan"), "threat.eps=nan is not"),
        ("linf", "eight", "threat.eps=eight is not a number: write 8/255 or 0.5"),
        ("linf", "8/0", "threat.eps=8/0 is not a number"),
    ],
)
def test_a_threat_that_makes_no_sense_is_refused_in_one_line(norm, eps, message):
    with pytest.raises(ValueError, match=message) as caught:
        Threat(norm, eps)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, eps, value",
    [
        ("8/255", None, 8 / 255),
        (" 2 / 255 ", None, 2 / 255),
        ("1e-2", None, 0.01),
        (0.5, None, 0.5),
        ("eps/4", 0.2, 0.05),
        ("eps", 0.2, 0.2),
    ],
)
def test_fractions_are_read_as_people_write_them(text, eps, value):
    assert fraction(text, "key", eps) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["eps/4", "8/255/2", "", "8 255", True, None, "__import__('os')"])
def test_what_is_not_a_number_is_refused_by_its_key(text):
    with pytest.raises(ValueError, match=r"attack\.step_size=.* is not a number: write"):
        fraction(text, "attack.step_size")
    assert Threat("l2", 3).eps == 3, "an l2 budget may be larger than 1"
