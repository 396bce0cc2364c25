"""Guidance by a classifier that is trained here: it guides with the trained weights, never with random ones."""

import pytest
import torch

from lgap_bench.build import build
from lgap_bench.cell.check import check
from lgap_bench.cell.compose import resolved
from lgap_bench.runtime.device import CPU

FEW = ["classifier=digits/scratch", "train=digits/adp", "train.n=40", "train.epochs=1", "attack=pgd"]


@pytest.mark.parametrize("purifier", ["coup", "likelihood_max_guided"])
def test_the_guide_has_the_trained_weights(purifier, tmp_path):
    made = resolved([*FEW, f"purifier={purifier}", f"outputs={tmp_path}"])
    check(made)
    defense = build(made, CPU).defense
    guide, classifier = defense.purifier.guidance.classifier.state_dict(), defense.classifier.state_dict()
    assert guide.keys() == classifier.keys()
    assert all(torch.equal(guide[key], classifier[key]) for key in guide)


ANOTHER = "{_target_: lgap_bench.classifier.wide_resnet.WideResNet, depth: 16, widen: 1, classes: 10}"


@pytest.mark.parametrize("overrides", [["finetune=lgap"], [f"purifier.guidance.classifier={ANOTHER}"]], ids=str)
def test_a_guide_that_cannot_have_them_is_refused(overrides):
    with pytest.raises(ValueError, match=r"^purifier.guidance.classifier has no weights.*finetune=.*$"):
        check(resolved([*FEW, "purifier=coup", *overrides]))
