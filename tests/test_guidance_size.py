"""The classifier that guides gets images of the size that the classifier behind the purifier gets, whatever the prior's."""

from __future__ import annotations

import pytest
import torch
from pixels import noise_of, tiny
from torch import Tensor, nn

from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.purifier.guidance import ClassifierConfidence
from lgap_bench.purifier.lgap import LGAP
from lgap_bench.purifier.likelihood import LikelihoodMax
from lgap_bench.purifier.sampler import ReverseSDE

# Name -> (side of the images, side at which the prior sees them, side handed to the classifier).
SIDES = {
    "coup, larger prior": (12, 16, 12),
    "likelihood_max, larger prior": (12, 16, 12),
    "lgap_coup, resized in": (16, 24, 16),
    "lgap_coup, resized in and out": (16, 24, 20),
}


def make(name: str, classifier: nn.Module, latent: nn.Module) -> Purifier:
    _, inside, outside = SIDES[name]
    if name.startswith("lgap"):
        guidance = ClassifierConfidence(classifier, weight=0.3, at="x_0")
        return LGAP(latent, None, 4, 0.5, resize_in=inside, resize_out=outside, guidance=guidance)
    prior = tiny()
    prior.size = inside
    guidance = ClassifierConfidence(classifier, weight=3.0)
    if name.startswith("coup"):
        return DiffPure(prior, ReverseSDE(0.05, last_noise=False), 0.1, forward_noise=None, guidance=guidance)
    return LikelihoodMax(prior, 2, step_size=0.1, eps=None, guidance=guidance)


@pytest.mark.parametrize("name", SIDES)
def test_the_guiding_classifier_sees_images_of_the_size_that_the_defending_one_sees(name, images, smooth, prior64):
    side, _, outside = SIDES[name]
    classifier, seen = smooth(outside).double(), []
    classifier.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[-2:])))
    purifier = make(name, classifier, prior64)
    purified = purifier(images(2, side, dtype=torch.float64), noise_of(2))
    assert seen
    assert {*seen, tuple(purified.shape[-2:])} == {(outside, outside)}


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", SIDES)
def test_the_gradient_through_a_resized_guidance_is_that_of_finite_differences(name, batch, images, smooth, prior64):
    side = SIDES[name][0]
    purifier = make(name, smooth(SIDES[name][2]).double(), prior64)
    x, noise = images(batch, side, dtype=torch.float64), noise_of(batch)
    weight = torch.randn(purifier(x, noise).shape, generator=torch.Generator().manual_seed(4)).double()

    def value(z: Tensor) -> Tensor:
        return (weight * purifier(z, noise)).flatten(1).sum(1)

    leaf = x.clone().requires_grad_()
    (exact,) = torch.autograd.grad(value(leaf).sum(), leaf)
    direction = exact / exact.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    h = 1e-6
    with torch.no_grad():
        slope = (value(x + h * direction) - value(x - h * direction)) / (2 * h)
    torch.testing.assert_close(slope, exact.flatten(1).norm(dim=1), rtol=1e-6, atol=0)
    purifier.guidance.weight = 0.0
    (without,) = torch.autograd.grad(value(leaf).sum(), leaf)
    assert (exact - without).abs().max() > 1e-4 * exact.abs().max(), "no guidance in it: the test shows nothing"


class Patches(nn.Module):
    """Flattens what is left of a picture into rows, as published networks do: a larger picture is several images to it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 8).permute(0, 2, 3, 1).reshape(-1, 3) @ self.weight


def test_a_classifier_that_answers_for_patches_is_refused(images):
    purifier = DiffPure(tiny(), ReverseSDE(0.05), 0.05, None, ClassifierConfidence(Patches()))
    with pytest.raises(ValueError, match=r"answers 8 times to 2 images of .16, 16.: it needs another size"):
        purifier(images(2, 16, dtype=torch.float64), noise_of(2))
