"""Attacks on a detector, images that transfer, and what the record and the verdict say of regions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import SIDE, Linear

from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.problem import Problem, detector_term
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.transfer import Transfer
from lgap_bench.attack.view import Caption, Full
from lgap_bench.defense import Defense
from lgap_bench.detector.base import Detector, Found, encode
from lgap_bench.evaluation import verdict
from lgap_bench.metric.regions import Regions
from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier


class Bright(Detector):
    """Finds one object where the left half is brighter than a half; its evidence is that brightness."""

    names = ("lamp",)
    attackable = True

    def find(self, x: Tensor, noise: Noise | None) -> list[Found]:
        found = []
        for image in x:
            there = bool(image[..., : SIDE // 2].mean() > 0.5)
            mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
            mask[:, : SIDE // 2] = there
            found.append(Found(("lamp",) if there else (), torch.ones(int(there)), torch.zeros(int(there), 4), mask))
        return found

    def presence(self, x: Tensor) -> Tensor:
        return x[..., : SIDE // 2].mean((1, 2, 3))


class Blanks(Purifier):
    """Greys out what is found."""

    def __init__(self, detector: Detector | None = None) -> None:
        super().__init__()
        self.detector = detector or Bright()

    def observe(self, x: Tensor, noise: Noise) -> list[str]:
        return [encode("a lamp", each.mask) for each in self.detector(x, noise)]

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        from lgap_bench.detector.base import decode

        masks = torch.stack([decode(each)[1] for each in observed or self.observe(x, noise)])
        return torch.where(masks[:, None], 0.5, x)


def problem(view=Full, count: int = 3) -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = 0.5 + 0.1 * torch.rand(count, 3, SIDE, SIDE, generator=generator)
    defense = Defense(Blanks(), Linear())
    y = defense.classify(x).argmax(1)
    return Problem(view(defense), x, y, tuple(range(count)), Threat("linf", 0.1), 0)


def test_boxes_vanish_under_an_attack_on_the_detector_alone():
    held = problem(Caption)
    x_adv = PGD(steps=10, step_size="eps/4", start="zero", class_weight=0.0, detector_weight=1.0, keep="last")(held)
    detector = held.view.defense.purifier.detector
    assert all(each.labels for each in detector(held.x))
    assert not any(each.labels for each in detector(x_adv))
    assert torch.equal(x_adv[..., SIDE // 2 :], held.x[..., SIDE // 2 :]), "nothing pulls at the other half"


def test_the_detectors_term_is_minus_its_evidence_with_its_gradient():
    held = problem()
    value, gradient = detector_term(held, held.x)
    assert torch.allclose(value, -held.x[..., : SIDE // 2].mean((1, 2, 3)))
    expected = torch.zeros_like(held.x)
    expected[..., : SIDE // 2] = -1 / (3 * SIDE * SIDE / 2)
    assert torch.allclose(gradient, expected)


def test_a_purifier_without_detector_is_refused():
    held = problem()
    bare = Problem(Full(Defense(Purifier(), Linear())), held.x, held.y, held.ids, held.threat, 0)
    with pytest.raises(ValueError, match="use purifier=inpaint"):
        PGD(steps=1, step_size="eps", detector_weight=1.0)(bare)
    with pytest.raises(ValueError, match="a caption's or a detector's term is lost"):
        PGD(steps=1, step_size="eps", detector_weight=1.0, eot="sign_vote")


@pytest.mark.parametrize("count", [1, 3, 8])
def test_transfer_shows_the_other_classifier_alone(count, monkeypatch):
    held = problem(count=count)
    torch.manual_seed(1)
    other = Linear()
    other.weight.data = other.weight.data.flip(0)
    view = Transfer(held.view.defense, other)
    monkeypatch.setattr(held.view.defense.classifier, "forward", lambda x: pytest.fail("the defense was looked at"))
    noise = held.stream("attack").draws()
    leaf = held.x.clone().requires_grad_(True)
    logits = view.logits(leaf, noise)
    assert torch.equal(logits, other(held.x))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    assert torch.allclose(gradient, other.weight[0].detach().view(3, SIDE, SIDE).expand_as(leaf))
    assert torch.equal(view.query(held.x, noise)[0], other(held.x))
    assert not view.randomized


def test_regions_say_how_large_what_was_found_is_and_whether_an_attack_moved_it():
    from lgap_bench.detector.base import decode

    left, right, none = torch.zeros(3, 4, 4, dtype=torch.bool)
    left[:, :2], right[:, 1:3] = True, True
    measure = Regions(decode)
    observed = {
        "clean": [encode("a", left), encode("a", none)],
        "attacked": [encode("a", right), encode("a", none)],
    }
    columns = measure.columns(torch.rand(2, 3, 4, 4), [0, 0], observed, {})
    assert columns["clean_region"].tolist() == [0.5, 0.0]
    assert columns["attacked_region_iou"].tolist() == [pytest.approx(1 / 3), 1.0]
    summary = measure.summary([columns], np.array([True, True]))
    assert summary["clean_region"] == 25.0
    assert summary["clean_region_empty"] == summary["attacked_region_empty"] == 1


def facts(**given):
    """A cell's facts with a detector that can be attacked, as the checks look at them."""
    attack = {"_target_": "x", "_about_": given.get("about", {}), "detector_weight": given.get("weight", 0)}
    cell = SimpleNamespace(
        purifier={"detector": {"weights": "w"}}, attack=attack, names=SimpleNamespace(attack="full", view="full")
    )
    chunk = {
        "attacked_margin": np.ones((1, 4)), "clean_region": np.full(4, 0.3), "zero_pixels": np.full(4, given.get("dead", 0.3)),
    }  # fmt: skip
    return verdict.Facts(cell, False, [chunk], {})


def test_a_detector_that_was_not_attacked_and_a_region_without_gradient_are_reasons():
    assert "the detector can be attacked" in verdict._detector(facts()).text
    assert verdict._detector(facts(weight=1.0)) is None
    assert "30 % of the pixels" in verdict._regenerated(facts()).text
    assert verdict._regenerated(facts(dead=0.0)) is None
    assert verdict._regenerated(facts(about={"gradient_free": True})) is None
