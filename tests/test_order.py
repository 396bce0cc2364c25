"""A renumbering is named where it explains a classifier's answers, and never made up from guesses."""

import numpy as np
import pytest

from lgap_bench.metric.order import another_order


@pytest.mark.parametrize("count", [64, 512])
def test_guesses_have_no_order(count):
    for seed in range(50):
        random = np.random.RandomState(seed)
        assert another_order(random.randint(0, 10, count), random.randint(0, 10, count)) == {}


def test_a_permutation_is_found_through_errors_and_an_order_that_fits_moves_nothing():
    random = np.random.RandomState(0)
    order, labels = random.permutation(10), random.randint(0, 10, 200)
    predicted = order[labels]
    predicted[:40] = random.randint(0, 10, 40)
    expected = {int(own): label for label, own in enumerate(order) if own != label}
    assert another_order(predicted, labels) == dict(sorted(expected.items()))
    assert another_order(labels, labels) == {}


def test_an_answer_that_is_always_the_same_is_no_order():
    assert another_order(np.zeros(100, int), np.arange(100) % 10) == {}
