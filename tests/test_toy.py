"""COUP's toy: exact scores, marginals and bounds in float64, and what of its two propositions holds."""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lgap_bench.prior.schedule import beta
from scripts.coup import toy_figure
from scripts.coup.toy import (
    WEIGHTS,
    Classifier,
    Mixture,
    bound,
    gamma,
    least_slope,
    propagation,
    purify,
    radius,
    times,
    wilson,
)

MIXTURE = Mixture()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def at(value: float, runs: int) -> Tensor:
    return torch.full((runs,), value, dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 1.0])
def test_the_score_is_the_gradient_of_the_noised_mixtures_log_density(t: float, n: int) -> None:
    x = (3 * torch.randn(n, generator=rng(), dtype=torch.float64)).requires_grad_(True)
    (expected,) = torch.autograd.grad(MIXTURE.densities(x, t).sum(0).log().sum(), x)
    torch.testing.assert_close(MIXTURE.score(x.detach(), t), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize(
    "kind, level", [("additive", 0.0), ("additive", 0.1), ("additive", 1.0), ("multiplicative", 1.0)]
)
def test_the_guidance_is_the_gradient_of_the_log_confidence(kind: str, level: float, n: int) -> None:
    classifier, e = Classifier(MIXTURE, level, kind), torch.randn(2, n, generator=rng(1), dtype=torch.float64)
    x = (1.5 * torch.randn(4, n, generator=rng(), dtype=torch.float64)).requires_grad_(True)
    clean, e_y = MIXTURE.densities(x), e[:, None]
    noisy = (
        clean * (level * e_y).exp() if kind == "multiplicative" else (clean + level * e_y).clamp(min=1e-2 * (level > 0))
    )
    (expected,) = torch.autograd.grad((noisy.max(0).values / noisy.sum(0)).log().sum(), x)
    expected = torch.where(noisy[0] == noisy[1], 0.0, expected)  # both cut off: no preference
    torch.testing.assert_close(classifier.guidance(x.detach(), e), expected, rtol=1e-8, atol=1e-8)


def test_the_exact_classifier_pushes_away_from_the_boundary_and_keeps_its_slope_where_densities_underflow() -> None:
    x = torch.tensor([-50.0, -1.0, 0.0, 1.0, 50.0], dtype=torch.float64)
    g = Classifier(MIXTURE).guidance(x, torch.zeros(2, 5, dtype=torch.float64))
    assert g.isfinite().all()
    assert (g[1:4].sign() == x[1:4].sign()).all()


def test_gamma_is_half_the_integral_of_beta() -> None:
    grid = [(k + 0.5) / 1000 * 0.7 for k in range(1000)]
    assert sum(beta(t) for t in grid) * 0.7 / 2000 == pytest.approx(gamma(0.7), rel=1e-6)


@pytest.mark.parametrize("t", [0.05, 0.3, 1.0])
def test_marginals_are_those_of_forward_noised_draws(t: float) -> None:
    generator = rng()
    clean, signal = MIXTURE.draw(200_000, generator), math.exp(-gamma(t))
    x = signal * clean + math.sqrt(1 - signal**2) * torch.randn(len(clean), generator=generator, dtype=torch.float64)
    mean, variance = MIXTURE.moments(t)
    assert float(x.square().mean()) == pytest.approx(mean**2 + variance, rel=0.02)
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = MIXTURE.densities(grid, t).mean(0)
    below = torch.cumsum(density, 0) * float(grid[1] - grid[0])
    assert float(below[-1]) == pytest.approx(1, abs=1e-6)
    for place in (1000, 1800, 2200, 3000):
        assert float((x <= grid[place]).double().mean()) == pytest.approx(float(below[place]), abs=0.005)


def test_from_pure_noise_eulers_method_with_the_exact_score_returns_the_mixture() -> None:
    x = purify(torch.randn(20_000, generator=rng(), dtype=torch.float64), MIXTURE.score, rng(1), t_star=1.0).end[0]
    assert float(x.mean()) == pytest.approx(0, abs=0.04)
    assert float(x.square().mean()) == pytest.approx(1.25, rel=0.03)  # mean^2 + std^2
    assert float(x.abs().mean()) == pytest.approx(float(MIXTURE.draw(400_000, rng(2)).abs().mean()), rel=0.02)
    assert float((x > 0).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_every_weight_walks_on_the_same_noise_whichever_weights_walk_beside_it() -> None:
    classifier = Classifier(MIXTURE, 0.3)
    together = purify(at(0.3, 8), MIXTURE.score, rng(), weights=(0.0, 1.0), classifier=classifier)
    alone = purify(at(0.3, 8), MIXTURE.score, rng(), weights=(1.0,), classifier=classifier)
    assert torch.equal(together.end[1], alone.end[0])
    exact = purify(at(0.3, 8), MIXTURE.score, rng(), weights=(0.0,), classifier=Classifier(MIXTURE, fresh=False))
    assert torch.equal(together.end[0], exact.end[0]), "the Brownian motion depends on how the classifier is noised"


def test_proposition_1_holds_run_by_run_with_the_exact_classifier() -> None:
    assert all(least_slope(MIXTURE, weight) > 0 for weight in WEIGHTS), "the proposition's condition"
    ever = purify(at(0.3, 4000), MIXTURE.score, rng(), weights=WEIGHTS, classifier=Classifier(MIXTURE)).flipped_ever
    assert not (ever[1:] & ~ever[:-1]).any(), "a run keeps its label at a weight and loses it at a larger one"
    shares = ever.double().mean(1).tolist()
    assert 0.15 < shares[0] < 0.3
    assert all(later < earlier for earlier, later in pairwise(shares))


def test_proposition_1s_condition_fails_where_weight_times_step_is_large() -> None:
    assert least_slope(MIXTURE, 8.0, t_star=0.5) < 0 < least_slope(MIXTURE, 1.0, t_star=0.5)


def test_a_noisy_classifier_breaks_proposition_1_and_a_wrong_one_loses_more_labels_than_none() -> None:
    wrong = Classifier(MIXTURE, 3.0, "multiplicative", fresh=False)
    paths = purify(at(0.3, 4000), MIXTURE.score, rng(), weights=(0.0, 8.0), classifier=wrong)
    assert (paths.flipped_ever[1] & ~paths.flipped_ever[0]).any()
    lost = paths.flipped_at_end.sum(1).tolist()
    assert wilson(lost[1], 4000)[0] > wilson(lost[0], 4000)[1]


def test_an_input_beyond_the_boundary_is_corrected_less_often_with_guidance() -> None:
    paths = purify(at(-0.1, 4000), MIXTURE.score, rng(), weights=(0.0, 1.0), classifier=Classifier(MIXTURE))
    back = paths.flipped_at_end.sum(1).tolist()
    assert wilson(back[1], 4000)[1] < wilson(back[0], 4000)[0]


def test_lost_at_the_end_implies_lost_at_some_time_and_forward_noise_can_lose_it_at_once() -> None:
    paths = purify(at(0.05, 2000), MIXTURE.score, rng(), t_star=0.001, forward_noise=True)
    assert not (paths.flipped_at_end & ~paths.flipped_ever).any()
    assert paths.flipped_ever.any()


def test_propagation_is_what_eulers_method_does_to_a_start_noise_and_constant_drift() -> None:
    factor, variance, length = propagation(0.3, 0.01)
    silent = purify(at(2.0, 40_000), lambda x, t: torch.zeros_like(x), rng(), t_star=0.3, dt=0.01).end[0]
    driven = purify(at(2.0, 40_000), lambda x, t: torch.ones_like(x), rng(), t_star=0.3, dt=0.01).end[0]
    assert float(silent.mean()) == pytest.approx(2 * factor, abs=0.03)
    assert float(silent.var()) == pytest.approx(variance, rel=0.03)
    torch.testing.assert_close(driven - silent, at(length, 40_000), rtol=1e-9, atol=1e-9)
    assert propagation(0.3, 1e-5) == pytest.approx(propagation(0.3), rel=1e-4)


@pytest.mark.parametrize("dimension", [1, 3, 8])
def test_the_radius_is_exceeded_by_at_most_delta(dimension: int) -> None:
    norms = torch.randn(100_000, dimension, generator=rng(), dtype=torch.float64).norm(dim=1)
    for delta in (0.3, 0.05, 0.01):
        assert float((norms > radius(dimension, delta)).double().mean()) <= delta


@pytest.mark.parametrize("t_star", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("forward", [False, True])
def test_the_bound_holds_with_its_confidence(forward: bool, weight: float, t_star: float) -> None:
    paths = purify(
        at(0.3, 3000),
        MIXTURE.score,
        rng(),
        weights=(weight,),
        classifier=Classifier(MIXTURE),
        t_star=t_star,
        forward_noise=forward,
    )
    moved = (paths.end[0] - 0.3).abs()

    def above(delta: float) -> int:
        limit = bound(
            t_star,
            dimension=1,
            norm=0.3,
            max_score=paths.max_score,
            max_guidance=paths.max_guidance,
            weight=weight,
            delta=delta,
            forward_noise=forward,
            dt=0.001,
        )
        return int((moved > limit).sum())

    assert above(0.05) <= 0.05 * 3000
    assert above(1e-9) == 0


def test_the_published_form_is_exceeded_by_a_constant_drift_and_the_strict_form_is_not() -> None:
    end = purify(at(1e-9, 2000), lambda x, t: torch.full_like(x, 100.0), rng(), t_star=0.3).end[0]
    known = {"dimension": 1, "norm": 0.0, "max_score": 100.0}
    assert (end.abs() > bound(0.3, **known, form="published")).all()
    assert float((end.abs() > bound(0.3, **known, dt=0.001)).double().mean()) <= 0.05


@pytest.mark.parametrize("form", ["strict", "published"])
@pytest.mark.parametrize("dimension, norm", [(1, 0.3), (3072, 28.0)])
def test_bounds_grow_with_time_weight_and_forward_noise(form: str, dimension: int, norm: float) -> None:
    known = {"dimension": dimension, "norm": norm, "max_score": 5.0, "max_guidance": 2.0, "form": form}
    for with_noise in (False, True):
        values = [bound(t, **known, weight=1.0, forward_noise=with_noise) for t in (0.01, 0.05, 0.1, 0.2, 0.4)]
        assert values == sorted(values)
    assert bound(0.1, **known, weight=2.0) > bound(0.1, **known, weight=1.0)
    for t_star in (0.01, 0.1, 0.4):
        assert bound(t_star, **known, forward_noise=True) > bound(t_star, **known)


def test_forward_noise_lowers_the_strict_bound_of_a_large_input_beyond_the_time_the_docstring_names() -> None:
    norm, r = math.sqrt(3072), radius(3072, 0.05)  # a CIFAR image of pixels at -1 and 1
    turn = 2 * math.atanh(((math.sqrt(2) - 1) * r / norm) ** 2)
    t = (-0.05 + math.sqrt(0.05**2 + 4 * 4.975 * turn)) / (2 * 4.975)
    known = {"dimension": 3072, "norm": norm, "max_score": 1.0}
    assert bound(0.99 * t, **known, forward_noise=True) > bound(0.99 * t, **known)
    assert bound(1.01 * t, **known, forward_noise=True) < bound(1.01 * t, **known)


def test_wilsons_interval() -> None:
    assert wilson(5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)
    assert wilson(0, 20)[0] == 0 < wilson(0, 20)[1]
    assert wilson(20, 20)[1] == 1


def test_bad_input_is_refused_in_one_line() -> None:
    known = {"dimension": 1, "norm": 1.0, "max_score": 1.0}
    for call, message in (
        (lambda: times(0.1, 0.03), "whole number of steps"),
        (lambda: times(1.5, 0.001), r"\(0, 1\]"),
        (lambda: Classifier(MIXTURE, 0.1, "added"), "neither additive nor"),
        (lambda: Classifier(MIXTURE, -0.1), "negative"),
        (lambda: purify(at(0.3, 3), MIXTURE.score, rng(), weights=(1.0,)), "without a classifier"),
        (lambda: bound(0.1, **known, form="loose"), "neither strict nor"),
        (lambda: bound(0.1, **known, form="published", dt=0.001), "leave out dt"),
        (lambda: bound(0.1, **known, delta=0.0), r"\(0, 1\)"),
        (lambda: wilson(3, 2), "between 0 and n"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_script_writes_table_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_figure.main(["--runs", "40", "--out", str(tmp_path)])
    rows = list(csv.DictReader((tmp_path / "coup_toy.csv").open()))
    assert {row["part"] for row in rows} == {"flip", "recovery", "distance"}
    assert all(float(row["ever_low"]) <= float(row["ever"]) <= float(row["ever_high"]) for row in rows if row["ever"])
    assert (tmp_path / "coup_toy.png").stat().st_size > 10_000
    assert "| additive, every step | 0 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        toy_figure.main(["--t-star", "2", "--out", str(tmp_path)])
