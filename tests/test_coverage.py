"""The 95 % intervals hold the truth about 95 times of 100, whatever the images are like, and have no jump at the edge."""

import math

import numpy as np
import pytest

from lgap_bench.metric.accuracy import accuracy
from lgap_bench.metric.interval import paired_interval, share_interval
from scripts import coverage


def limits(right, n):
    return share_interval((np.arange(n) < right)[None].astype(float), 1)[1:]


@pytest.mark.parametrize("n", [16, 64, 200])
def test_images_that_are_right_or_wrong_are_covered_whatever_the_truth(n):
    intervals = [limits(right, n) for right in range(n + 1)]

    def covered(p):
        return sum(
            math.comb(n, right) * p**right * (1 - p) ** (n - right)
            for right, (low, high) in enumerate(intervals)
            if low <= p <= high
        )

    exact = [covered(p) for p in np.linspace(0.0005, 0.9995, 1000)]  # no simulation: every count has its probability
    assert min(exact) >= 0.93
    assert 0.95 <= np.mean(exact) <= 0.975


@pytest.mark.parametrize(
    "population, p, n, seeds, draws",
    [
        ("alike", 0.5, 64, 1, 10),
        ("alike", 0.9, 512, 1, 10),
        ("skewed", 0.02, 64, 1, 10),
        ("skewed", 0.97, 64, 3, 10),
        ("skewed", 0.9, 64, 1, 1),
        ("all or nothing", 0.97, 64, 3, 10),
    ],
)
def test_a_simulated_truth_is_covered_93_to_97_5_times_of_100(population, p, n, seeds, draws):
    low, high = coverage.BAND
    assert low <= coverage.coverage(population, p, n, seeds, draws, sets=800) <= high


def test_the_bootstrap_before_left_the_band_so_that_the_simulation_can_tell():
    assert coverage.coverage("skewed", 0.97, 64, 1, 10, coverage.before, sets=60) < 90


@pytest.mark.parametrize("gained", coverage.DIFFERENCES)
def test_a_simulated_difference_of_two_defenses_is_covered(gained):
    for population in ("alike", "skewed"):
        assert 93 <= coverage.paired_coverage(population, 0.5, gained, 64, 1, 10, sets=400) <= 99


@pytest.mark.parametrize("spread_out", [True, False])
def test_one_right_draw_more_of_640_moves_the_interval_a_little(spread_out):
    correct = np.zeros((1, 64, 10), bool)
    found = [accuracy(correct)]
    for right in range(20):
        if spread_out:
            correct[0, right, 0] = True  # each in another image
        else:
            correct[0, right // 10, right % 10] = True  # one image after the other
        found.append(accuracy(correct))
    lows, highs = np.asarray([each.low for each in found]), np.asarray([each.high for each in found])
    assert found[0].low == 0
    assert 5 < found[0].high < 6.5
    assert (np.diff(lows) >= 0).all()
    assert np.abs(np.diff(highs)).max() < 0.6
    assert highs.min() > found[0].high - 1, "one right draw more is no proof of less"


def test_two_defenses_at_zero_differ_by_an_interval_with_a_width_that_shrinks_with_images():
    widths = []
    for n in (1, 8, 64, 512):
        mean, low, high = paired_interval(np.zeros((3, n)))
        assert (mean, low) == (0, -high)
        widths.append(high)
    assert widths == sorted(widths, reverse=True)
    assert 3 < widths[2] < 6
    assert paired_interval(np.full((1, 64), 100.0))[1] > 90
    assert paired_interval(np.full((1, 64), 100.0))[2] == 100


def test_a_difference_swaps_sign_with_its_sides_and_holds_its_mean():
    random = np.random.default_rng(0)
    for shape in ((1, 1), (1, 3), (3, 8), (2, 64)):
        points = 10.0 * random.integers(-10, 11, shape)
        mean, low, high = paired_interval(points)
        assert -100 <= low <= mean <= high <= 100
        assert paired_interval(-points) == pytest.approx((-mean, -high, -low))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 10), (3, 8, 1), (2, 8, 4)])
def test_right_and_wrong_swapped_turn_the_interval_round(shape):
    correct = np.random.default_rng(1).random(shape) < 0.8
    one, other = accuracy(correct), accuracy(~correct)
    assert (one.low, one.mean, one.high) == pytest.approx((100 - other.high, 100 - other.mean, 100 - other.low))
    assert 0 <= one.low <= one.mean <= one.high <= 100


def test_the_order_of_seeds_images_and_draws_does_not_matter():
    random = np.random.default_rng(2)
    correct = random.random((3, 8, 5)) < random.random((1, 8, 1))
    for axis in range(3):
        other = accuracy(random.permutation(correct, axis=axis))
        assert vars(other) == pytest.approx(vars(accuracy(correct)))


def test_images_that_agree_by_luck_do_not_narrow_the_interval_to_nothing():
    correct = np.tile(np.array([True, False]), (1, 64, 1))  # each right in one draw of two
    found = accuracy(correct)
    assert found.high - found.low > 10


def test_the_script_prints_a_row_per_population_and_marks_what_leaves_the_band(capsys, monkeypatch):
    monkeypatch.setattr(coverage, "IMAGES", (16,))
    monkeypatch.setattr(coverage, "DRAWS", (1,))
    monkeypatch.setattr(coverage, "DATA_SETS", 20)
    monkeypatch.setattr(coverage, "DATA_SETS_BEFORE", 20)
    coverage.main(["--quick", "--before"])
    said = capsys.readouterr().out
    assert "| skewed | 16 | 1 | 3 |" in said
    assert "→" in said
    assert [coverage.marked(value) for value in (92.9, 93, 97.5, 97.6)] == ["**92.9**", "93.0", "97.5", "97.6+"]
