"""Our defenses as plain modules: what others' libraries, which know nothing of noise, make of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lgap_bench import load_defense
from lgap_bench.dataset.digits import digits
from lgap_bench.runtime import libraries


@pytest.fixture(scope="module")
def lgap():
    return load_defense("dataset=digits", "purifier=lgap")


@pytest.fixture(scope="module")
def data():
    held = digits()
    return held.images[:8], held.labels[:8]


def loss(defense, x, y, draws=8):
    """The mean cross-entropy over draws."""
    with torch.no_grad():
        torch.manual_seed(0)
        return float(torch.stack([F.cross_entropy(defense(x), y) for _ in range(draws)]).mean())


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_call_without_noise_draws_anew_and_follows_torchs_seed(lgap, data, rows):
    with torch.no_grad():
        torch.manual_seed(1)
        first, other = lgap(data[0][:rows]), lgap(data[0][:rows])
        torch.manual_seed(1)
        again = lgap(data[0][:rows])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_robustbench_counts_a_defense(lgap, data):
    libraries.robustbench()
    from robustbench.utils import clean_accuracy

    assert clean_accuracy(lgap, *data, batch_size=4, device=torch.device("cpu")) > 0.7


def test_torchattacks_attacks_a_defense_through_its_gradient(lgap, data):
    import torchattacks

    attacked = torchattacks.PGD(lgap, eps=48 / 255, alpha=6 / 255, steps=5)(*data)
    assert float((attacked - data[0]).abs().max()) <= 48 / 255 + 1e-6
    assert loss(lgap, attacked, data[1]) > 2 * loss(lgap, data[0], data[1])


def test_foolbox_attacks_a_defense(lgap, data):
    foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed")
    model = foolbox.PyTorchModel(lgap, bounds=(0, 1))
    _, clipped, _ = foolbox.attacks.LinfPGD(steps=20, abs_stepsize=6 / 255)(model, *data, epsilons=48 / 255)
    assert float((clipped - data[0]).abs().max()) <= 48 / 255 + 1e-6
    assert loss(lgap, clipped, data[1]) > 1.5 * loss(lgap, data[0], data[1])
