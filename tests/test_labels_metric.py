"""Precision, average precision and attack success of images with several labels."""

import numpy as np
import pytest

from lgap_bench.metric import labels


@pytest.fixture
def drawn():
    generator = np.random.RandomState(0)
    truth = generator.rand(40, 6) < 0.3
    truth[:, 5] = False  # a class that is in no image
    truth[~truth.any(1), 0] = True
    scores = generator.randn(3, 40, 6) + truth
    return scores, truth


@pytest.mark.parametrize("digits", [None, 1])
def test_average_precision_is_scikit_learns_also_with_equal_scores(drawn, digits):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, truth = drawn
    scores = scores if digits is None else scores.round(digits)
    found = labels.average_precisions(scores, truth)
    for draw in range(3):
        for k in range(5):
            expected = metrics.average_precision_score(truth[:, k], scores[draw, :, k])
            assert found[draw, k] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(found[:, 5]).all()


def test_precisions_are_scikit_learns(drawn):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, truth = drawn
    found = labels.worth(scores[:1], truth, 0.5)
    said = scores[0] > 0.5
    for ours, theirs in (("macro", "macro"), ("micro", "micro"), ("sample", "samples")):
        kept = truth.any(0) if ours == "macro" else slice(None)
        expected = metrics.precision_score(truth[:, kept], said[:, kept], average=theirs, zero_division=0)
        assert found[f"precision_{ours}"] == pytest.approx(100 * expected)
    assert found["map_low"] <= found["map"] <= found["map_high"]


def test_the_threshold_is_the_one_of_highest_f1(drawn):
    scores, truth = drawn

    def f1(threshold):
        said = scores[0] > threshold
        return 2 * (said & truth).sum() / (said.sum() + truth.sum())

    chosen = labels.best_threshold(scores[0], truth)
    assert f1(chosen) == max(f1(each - 1e-9) for each in scores[0].ravel())


def test_attack_success_reads_three_ways():
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]], bool)
    clean = np.eye(3)[[0, 0, 2, 2]][None]  # right, right, right, wrong
    attacked = np.eye(3)[[1, 2, 2, 0]][None]  # another class of the image, wrong, as before, wrong otherwise
    found = labels.success(clean, attacked, truth)
    assert found["not_in_image"]["mean"] == 50
    assert found["changed"]["mean"] == 75
    assert found["of_correct"]["mean"] == pytest.approx(100 / 3)
