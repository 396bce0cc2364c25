"""The captioner that asks several times: who wins, what its views are, and that it can be attacked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lgap_bench.captioner.consensus import Consensus, agreed
from lgap_bench.captioner.text import Fixed, Oracle
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.identity import identity
from lgap_bench.dataset.base import DataSet
from lgap_bench.noise import Stream
from lgap_bench.runtime import weights as weight_files

TRUTHS = ["a photo of a handwritten seven", "bold", "a photo of a handwritten nine in thin strokes"]


class Bright(nn.Module):
    """Names what it sees of one pixel; its loss is the image's mean times the caption's length."""

    def forward(self, x, noise=None):
        return ["bright" if value > 0.5 else "dark" for value in x[:, 0, 1, 1].tolist()]

    def loss(self, x, captions):
        return x.flatten(1).mean(1) * torch.tensor([float(len(c)) for c in captions], dtype=x.dtype)


@pytest.mark.parametrize(
    "captions, winner",
    [
        (["a cat"], "a cat"),
        (["a dog", "a cat", "a cat"], "a cat"),
        (["a dog", "a cat"], "a dog"),  # a tie: the first
        (["a cow", "a dog", "a cat", "a dog", "a cat"], "a dog"),
        (["x", "red cat here", "cat here", "a red cat", "y"], "red cat here"),  # most like the others, once each
        (["", "", "a cat"], ""),
    ],
)
def test_the_caption_most_like_the_others_wins(captions, winner):
    assert agreed(captions) == winner


def test_the_views_are_what_they_are_said_to_be():
    x = torch.arange(48.0).view(1, 3, 4, 4) / 48
    views = Consensus({"a": Bright()}, shift=1, blur=0.7, scale=0.5).views(x)
    assert len(views) == 7
    assert torch.equal(views[0], x)
    left, right, up, down = views[1:5]
    assert torch.equal(left[..., :-1], x[..., 1:])
    assert torch.equal(left[..., -1], x[..., -1])
    assert torch.equal(right[..., 1:], x[..., :-1])
    assert torch.equal(right[..., 0], x[..., 0])
    assert torch.equal(up[..., :-1, :], x[..., 1:, :])
    assert torch.equal(down[..., 1:, :], x[..., :-1, :])
    flat = torch.full((2, 3, 5, 7), 0.3)
    for view in Consensus({"a": Bright()}).views(flat):
        torch.testing.assert_close(view, flat)
    point = torch.zeros(1, 3, 9, 9)
    point[..., 4, 4] = 1
    blurred = Consensus({"a": Bright()}, shift=0, blur=0.7, scale=1).views(point)[1]
    torch.testing.assert_close(blurred.sum((2, 3)), torch.ones(1, 3))
    torch.testing.assert_close(blurred, blurred.transpose(2, 3))
    assert blurred[0, 0, 4, 5] / blurred[0, 0, 4, 4] == pytest.approx(torch.tensor(-0.5 / 0.49).exp().item(), rel=1e-4)
    assert Consensus({"a": Bright()}, shift=0, blur=0, scale=1).views(x) == [x]


def test_views_stay_in_the_unit_interval_and_keep_the_size(images):
    x = images(2, 15).sub(0.5).mul(4).add(0.5).clamp(0, 1)
    for view in Consensus({"a": Bright()}, shift=2, blur=1.5, scale=0.4).views(x):
        assert view.shape == x.shape
        assert view.min() >= -1e-6
        assert view.max() <= 1 + 1e-6
    halves = Consensus({"a": Bright()}).views(x.bfloat16())
    assert {view.dtype for view in halves} == {torch.bfloat16}


def test_one_changed_pixel_is_outvoted():
    x = torch.full((2, 3, 6, 6), 0.2)
    x[0, :, 1, 1] = 1.0
    assert Bright()(x) == ["bright", "dark"]
    assert Consensus({"a": Bright()})(x) == ["dark", "dark"]


def test_captions_do_not_depend_on_the_batch_and_repeat(blip, images):
    consensus, x = Consensus({"blip": blip}), images(8, 32)
    together = consensus(x)
    assert len(set(together)) > 1, "the random captioner says the same of every image: the test shows nothing"
    assert consensus(x) == together
    assert [consensus(x[i : i + 1])[0] for i in range(8)] == together
    by_hand = [agreed([blip(view[i : i + 1])[0] for view in consensus.views(x)]) for i in range(3)]
    assert together[:3] == by_hand
    assert together != blip(x), "no view ever changes a caption: the test shows nothing"


def test_a_member_that_looks_its_sample_up_gets_its_own_noise(images):
    labels = torch.arange(4) % 2
    data = DataSet("toy", "test", torch.rand(4, 3, 4, 4), labels, 50 + torch.arange(4), ("cat", "dog"), "a {label}")
    noise = Stream(0, "score", (52, 51)).draws()
    assert Consensus({"oracle": Oracle(data), "fixed": Fixed("x")})(images(2), noise) == ["a cat", "a dog"]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_loss_is_the_mean_over_views_and_over_members_that_have_one(batch, blip, images):
    x, captions = images(batch, 32), (TRUTHS * 3)[:batch]
    consensus = Consensus({"blip": blip, "fixed": Fixed("a photo"), "bright": Bright()})
    views = consensus.views(x)
    expected = torch.stack([member.loss(view, captions) for member in (blip, Bright()) for view in views]).mean(0)
    torch.testing.assert_close(consensus.loss(x, captions), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_its_gradient_equals_finite_differences(batch, make_blip, images):
    consensus = Consensus({"blip": make_blip().double(), "bright": Bright()}).double()
    captions = (TRUTHS * 3)[:batch]
    x = (0.4 + 0.2 * images(batch, 32, dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(consensus.loss(x, captions).sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction /= direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    h = 1e-4
    with torch.no_grad():
        a, b, c, d = (consensus.loss(x + s * h * direction, captions) for s in (-2, -1, 1, 2))
    expected = (a - 8 * b + 8 * c - d) / (12 * h)
    slope = (gradient * direction).flatten(1).sum(1)
    error = ((slope - expected).norm() / expected.norm()).item()
    assert error <= 1e-6, f"{error:.1e} off finite differences"


def test_nobody_to_ask_and_nobody_to_attack_are_refused(images):
    with pytest.raises(ValueError, match=r"captioner.captioners is empty: name at least one"):
        Consensus({})
    with pytest.raises(ValueError, match=r"captioner.captioners is a list: give each captioner a name"):
        Consensus([Fixed("a")])
    with pytest.raises(ValueError, match="holds none that can be attacked"):
        Consensus({"fixed": Fixed("a")}).loss(images(1), ["a"])


def test_the_members_weights_are_part_of_the_identity():
    named = identity(resolved(["captioner=digits/consensus", "attack=joint"]), "cpu")
    members = named["purifier"]["captioner"]["captioners"]
    assert members["blip"]["weights"] == weight_files.fingerprint("embedded:digits/blip")
