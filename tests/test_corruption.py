"""Salt-and-pepper noise: what it strikes, that it hangs on the sample alone, and the threat it needs."""

import pytest
import torch

from lgap_bench.attack.salt_and_pepper import SaltAndPepper
from lgap_bench.attack.threat import Threat
from lgap_bench.cell.check import check
from lgap_bench.cell.compose import composed, resolved
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.measure import run_cell
from lgap_bench.purifier.base import Purifier

ANY = Threat("linf", 1.0)


class Never(Purifier):
    """A defense that must not be asked."""

    randomized = True

    def forward(self, x, noise, observed=None):
        raise AssertionError("a corruption looks at no model")


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_whole_pixels_turn_black_or_white_and_the_others_stay(count, density, make_problem, images):
    x = images(count, 32)
    problem = make_problem(torch.nn.Identity(), x, y=torch.zeros(count).long(), purifier=Never(), threat=ANY)
    found = SaltAndPepper(density)(problem)
    ANY.check(found, x, problem.ids, "salt_and_pepper")
    black, white = (found == 0).all(1), (found == 1).all(1)
    struck = (found != x).any(1)
    assert torch.equal(struck, black | white), "a pixel is struck in all channels or in none"
    pixels = struck.numel()
    spread = 5 * (density * (1 - density / 2) / pixels) ** 0.5 + 1e-9
    assert struck.float().mean().item() == pytest.approx(density, abs=spread)
    for kind in (black, white):
        assert kind.float().mean().item() == pytest.approx(density / 2, abs=spread)


def test_it_hangs_on_seed_and_sample_alone(make_problem, images):
    def found(rows, seed=0):
        return SaltAndPepper(0.1)(make_problem(torch.nn.Identity(), x[rows], y[rows], threat=ANY, ids=rows, seed=seed))

    x, y = images(8), torch.zeros(8).long()
    together = found(list(range(8)))
    for rows in ([0], [5, 2, 7]):
        assert torch.equal(found(rows), together[rows])
    assert torch.equal(found(list(range(8))), together)
    assert not torch.equal(found(list(range(8)), seed=1), together)
    masks = (together != x).any(1).flatten(1)
    assert len({tuple(mask.tolist()) for mask in masks}) == 8, "every sample is struck elsewhere"
    assert together.dtype == x.dtype


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "cifar100", "imagenet"])
def test_the_preset_brings_its_threat_and_the_data_sets_own_density(dataset):
    train = ["train=cifar100/adp"] if dataset == "cifar100" else []
    found = resolved([f"dataset={dataset}", "attack=salt_and_pepper", *train])
    check(found)
    assert (found.names.threat, found.names.view) == (f"{dataset}/corruption", "none")
    assert instantiate(found.threat) == ANY
    assert instantiate(found.attack) == SaltAndPepper(0.025 if dataset == "digits" else 0.005)


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["threat=digits/linf"], "eps=0.188.* with attack=salt_and_pepper: it needs eps="),
        (["threat=digits/l2"], "norm=l2 with attack=salt_and_pepper: it needs norm=linf"),
        (["view=full"], "view=full with attack=salt_and_pepper: it needs view=none"),
        (["attack.density=0"], "attack.density=0 is not in"),
        (["attack.density=1.5"], "attack.density=1.5 is not in"),
    ],
)
def test_what_does_not_go_with_it_is_refused_in_one_line(overrides, words):
    with pytest.raises(ValueError, match=words) as caught:
        check(resolved(["attack=salt_and_pepper", *overrides]))
    assert "\n" not in str(caught.value)


def test_other_attacks_still_need_a_view():
    with pytest.raises(ValueError, match="view=none with attack=pgd"):
        check(resolved(["attack=pgd", "view=none"]))


def test_the_miniatures_density_hurts_the_undefended_classifier_as_the_papers_did(tmp_path):
    common = ["attack=salt_and_pepper", "purifier=none", "n=200", "chunk=100", "threads=1", f"outputs={tmp_path}"]
    cfg = composed([*common])
    summary = run_cell(cfg, cfg.hydra.runtime.choices).summary()
    lost = summary["natural"]["mean"] - summary["robust"]["mean"]
    assert 4 < lost < 14, f"{lost:.1f} points, COUP's classifier loses 8.3"
    assert summary["mean_linf"] == 1
    assert (summary["view"], summary["eps"]) == ("none", "1")
