"""Scores of randomized defenses against closed forms."""

import numpy as np
import pytest

from lgap_bench.metric.accuracy import accuracy
from lgap_bench.metric.caption import names_label


def test_any_and_majority_of_k_count_whole_images():
    correct = np.array([[[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]], dtype=bool)
    result = accuracy(correct)
    assert result.mean == pytest.approx(100 * 9 / 16)
    assert result.any_of_k == pytest.approx(25.0)
    assert result.majority_of_k == pytest.approx(50.0)  # a tie is no majority


def test_interval_covers_the_truth_in_about_95_of_100_data_sets():
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        difficulty = random.beta(2, 1, size=60)  # mean 2/3, so draws of one image hang together
        correct = random.random((1, 60, 5)) < difficulty[None, :, None]
        result = accuracy(correct)
        covered += result.low <= 200 / 3 <= result.high
    assert 180 <= covered <= 200


def test_draws_of_one_image_do_not_narrow_the_interval_as_if_they_were_images():
    random = np.random.default_rng(0)
    sure = np.repeat(random.random((1, 50, 1)) < 0.5, 20, axis=2)  # 20 equal draws of 50 images
    one = accuracy(sure[:, :, :1])
    many = accuracy(sure)
    assert (many.high - many.low) == pytest.approx(one.high - one.low, rel=0.15)


@pytest.mark.parametrize("value, low, high", [(True, 96.2, 100.0), (False, 0.0, 3.8)])
def test_unanimous_images_still_have_an_interval(value, low, high):
    result = accuracy(np.full((3, 100, 10), value))
    assert (result.low, result.high) == (pytest.approx(low, abs=0.1), pytest.approx(high, abs=0.1))
    assert result.high - result.low > 1


def test_seeds_that_shift_all_images_widen_the_interval():
    per_seed = np.zeros((3, 40, 2), dtype=bool)
    per_seed[0] = True  # one seed right, two wrong: the seeds' spread must show
    result = accuracy(per_seed)
    assert result.low < 5
    assert result.high > 60


@pytest.mark.parametrize(
    "caption, label, named",
    [
        ("a photo of a handwritten seven in thin strokes", 1, True),
        ("A photo of a SEVEN", 1, True),
        ("a photo of seventeen", 1, False),
        ("", 1, False),
        ("a polar bear on ice", 0, True),
    ],
)
def test_the_label_counts_as_a_whole_word_only(caption, label, named):
    assert names_label(caption, label, ["polar bear", "seven"]) is named
