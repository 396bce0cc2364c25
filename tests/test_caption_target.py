"""Targeted caption attacks: where they aim, that their gradient is right, and that they get nearer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from conftest import CAPTIONS
from torch import nn

from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.problem import aim_captions, caption_term
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import Bpda, Caption
from lgap_bench.captioner.consensus import Consensus
from lgap_bench.evaluation.loop import _attacked
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.lgap import LGAP

NONSENSE = "a photo of a photo"


class Table(nn.Module):
    """A captioner whose loss on class k's caption is written in the image's k-th pixel."""

    def forward(self, x, noise=None):
        return [CAPTIONS[k] for k in x[:, 0].flatten(1)[:, :5].argmin(1).tolist()]

    def loss(self, x, captions):
        index = torch.tensor([CAPTIONS.index(caption) for caption in captions])
        return x[:, 0].flatten(1).gather(1, index[:, None]).squeeze(1)


class Captioned(Purifier):
    """The identity with a captioner."""

    def __init__(self, captioner):
        super().__init__()
        self.captioner = captioner

    def observe(self, x, noise):
        return self.captioner(x, noise)


def targeted(make_problem, classifier, x, y, purifier, view=Caption, **more):
    problem = make_problem(classifier, x, y, purifier=purifier, view=view, captions=[CAPTIONS[k] for k in y], **more)
    object.__setattr__(problem, "class_captions", tuple(CAPTIONS[:5]))
    object.__setattr__(problem, "unrelated", NONSENSE)
    return problem


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_nearest_is_the_likeliest_wrong_class_on_the_clean_image(batch, images, smooth, make_problem):
    x = images(8, 16, dtype=torch.float64)[:batch]
    losses = x[:, 0].flatten(1)[:, :5]
    y = losses.argmin(1) if batch == 3 else torch.arange(batch) % 5  # also where the true class is the likeliest
    problem = targeted(make_problem, smooth().double(), x, y, Captioned(Table()))
    aimed = aim_captions(problem, "nearest")
    expected = [min((k for k in range(5) if k != int(t)), key=lambda k: row[k]) for row, t in zip(losses, y, strict=True)]  # fmt: skip
    assert problem.published["caption_target_label"].tolist() == expected
    assert aimed.caption_aims == [CAPTIONS[k] for k in expected]
    rows = list(range(batch))[::-1]
    assert aimed.take(rows).caption_aims == aimed.caption_aims[::-1]
    assert aim_captions(problem.take([batch - 1]), "nearest").caption_aims == aimed.caption_aims[-1:]


def test_unrelated_is_the_data_sets_sentence_and_null_changes_nothing(images, smooth, make_problem):
    problem = targeted(make_problem, smooth(), images(3), torch.tensor([0, 1, 2]), Captioned(Table()))
    assert aim_captions(problem, None) is problem
    assert problem.published == {}
    assert aim_captions(problem, "unrelated").caption_aims == [NONSENSE] * 3
    assert problem.published["caption_target_label"].tolist() == [-1] * 3
    object.__setattr__(problem, "unrelated", None)
    with pytest.raises(ValueError, match=r"caption_target=unrelated needs a sentence: set dataset\.unrelated"):
        aim_captions(problem, "unrelated")


def test_settings_and_captioners_that_cannot_work_are_refused(images, smooth, make_problem):
    with pytest.raises(ValueError, match=r"attack\.caption_target=far is not known"):
        PGD(1, 0.1, caption_target="far")
    problem = make_problem(smooth(), images(1))
    with pytest.raises(ValueError, match="needs a purifier with a captioner that can be attacked"):
        aim_captions(problem, "nearest")


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_gradient_of_the_targeted_term_equals_finite_differences(batch, make_blip, images, smooth, make_problem):
    captioner = make_blip().double()
    x, y = 0.4 + 0.2 * images(batch, 32, dtype=torch.float64), torch.arange(batch) % 5
    problem = targeted(make_problem, smooth(32).double(), x, y, Captioned(captioner))
    aimed = aim_captions(problem, "nearest")
    value, gradient = caption_term(aimed, x)
    torch.testing.assert_close(value, -captioner.loss(x, aimed.caption_aims))
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction /= direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    h = 1e-4
    a, b, c, d = (caption_term(aimed, x + s * h * direction)[0] for s in (-2, -1, 1, 2))
    expected = (a - 8 * b + 8 * c - d) / (12 * h)
    slope = (gradient * direction).flatten(1).sum(1)
    error = ((slope - expected).norm() / expected.norm()).item()
    assert error <= 1e-6, f"{error:.1e} off finite differences"


@pytest.mark.parametrize("target", ["nearest", "unrelated"])
@pytest.mark.parametrize("view, weight", [(Caption, 0.0), (Bpda, 1.0)], ids=["caption", "joint"])
@pytest.mark.parametrize("several", [False, True], ids=["blip", "consensus"])
def test_a_targeted_attack_lowers_the_captioners_loss_on_its_target(
    several, view, weight, target, prior, blip, images, smooth, make_problem
):
    x, y = images(3, 16), torch.tensor([0, 1, 2])
    captioner = Consensus({"blip": blip}) if several else blip
    problem = targeted(
        make_problem, smooth(), x, y, LGAP(prior, captioner, 4, 0.5), view, threat=Threat("linf", 16 / 255)
    )
    attack = PGD(6, "eps/4", start="zero", class_weight=weight, caption_weight=20.0, caption_target=target, keep="last")
    found = attack(problem)
    aims = aim_captions(problem, target).caption_aims
    assert (captioner.loss(found, aims) < captioner.loss(x, aims) - 1e-3).all()
    alone = attack(problem.take([1]))
    assert (alone - found[1:2]).abs().mean() < 0.01, "another target alone than among others"


def test_a_chunk_with_a_failed_sample_keeps_the_others_targets(images, smooth, make_problem):
    def attack(problem):
        if 101 in problem.ids:
            raise FloatingPointError("gradient of sample 101 is not finite")
        return PGD(1, 0.01, class_weight=0.0, caption_weight=1.0, caption_target="nearest")(problem)

    problem = targeted(make_problem, smooth(), images(3), torch.tensor([4, 1, 3]), Captioned(Table()))
    expected = aim_captions(problem, "nearest").published["caption_target_label"].tolist()
    _, failed = _attacked(SimpleNamespace(attack=attack), problem)
    assert failed.tolist() == [False, True, False]
    assert problem.published["caption_target_label"].tolist() == [expected[0], -1, expected[2]]
