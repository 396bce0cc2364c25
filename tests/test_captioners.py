"""Where captions come from, and the captioner's loss that attacks raise."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from lgap_bench.captioner.text import Fixed, Given, Oracle, Wrong
from lgap_bench.dataset.base import DataSet
from lgap_bench.noise import Stream

CLASSES = ("zero", "one", "two", "three")
TRUTHS = ["a photo of a handwritten seven", "bold", "a photo of a handwritten nine in thin strokes"]


def data(count: int = 4) -> DataSet:
    labels = torch.arange(count) % len(CLASSES)
    return DataSet(
        "toy", "test", torch.rand(count, 3, 4, 4), labels, 50 + torch.arange(count), CLASSES, "a photo of {label}"
    )


def noise_of(ids, seed=0, draws=1, role="score"):
    return Stream(seed, role, tuple(ids)).draws(draws)


@pytest.mark.parametrize("text", ["", "a photo"])
def test_fixed_says_the_same_of_every_image(text):
    assert Fixed(text)(torch.rand(3, 3, 4, 4), noise_of(range(3))) == [text] * 3


def test_oracle_names_the_true_class_of_each_id_in_every_draw():
    ids = (53, 50, 51)
    said = Oracle(data())(torch.rand(6, 3, 4, 4), noise_of(ids, draws=2))
    assert said == ["a photo of three", "a photo of zero", "a photo of one"] * 2


def test_wrong_is_uniform_over_the_other_classes_and_never_true():
    count = 3000
    wrong, truth = Wrong(data(count)), Oracle(data(count))
    ids, x = range(50, 50 + count), torch.rand(count, 3, 4, 4)
    said, true = wrong(x, noise_of(ids)), truth(x, noise_of(ids))
    assert all(a != b for a, b in zip(said, true, strict=True))
    shares = Counter(zip(true, said, strict=True))
    assert len(shares) == 4 * 3
    for pair, seen in shares.items():  # 250 expected, standard deviation 13
        assert 190 < seen < 310, f"{pair} {seen} times of {count}"


def test_wrong_is_fixed_by_seed_and_sample_whatever_the_draw_or_role():
    wrong, ids, x = Wrong(data(200)), range(50, 250), torch.rand(200, 3, 4, 4)
    said = wrong(x, noise_of(ids))
    assert wrong(torch.cat([x] * 3), noise_of(ids, draws=3)) == said * 3
    assert wrong(x, noise_of(ids, role="attack")) == said
    assert wrong(x[:1], noise_of([60])) == [said[10]]
    assert wrong(x, noise_of(ids, seed=1)) != said


def test_blip_captions_do_not_depend_on_the_batch(blip, images):
    x = images(8, 32)
    together = blip(x)
    assert len(set(together)) > 2, "the random captioner says the same of every image: the test shows nothing"
    assert [blip(x[i : i + 1])[0] for i in range(8)] == together
    assert blip(x.flip(0)) == together[::-1]


@pytest.mark.parametrize(
    "settings, least, most",
    [
        (dict(prompt="a photo of", max_length=4), 4, 7),
        (dict(min_length=5, max_length=5), 5, 5),
        (dict(max_length=2), 0, 2),
        (dict(beams=3, max_length=4), 0, 4),
    ],
    ids=str,
)
def test_blip_keeps_to_prompt_and_lengths(settings, least, most, make_blip, images):
    captioner, x = make_blip(**settings), images(3, 32)
    said = captioner(x)
    assert all(caption == caption.strip() and "[" not in caption for caption in said)
    assert all(caption.startswith(settings.get("prompt", "")) for caption in said)
    assert all(least <= len(caption.split()) <= most for caption in said), said
    assert captioner(x) == said


def test_beam_search_finds_captions_at_least_as_likely(make_blip, images):
    """Lengths are fixed, so that the search's length penalty plays no part."""
    settings = dict(min_length=4, max_length=4)
    greedy, beam, x = make_blip(**settings), make_blip(beams=8, **settings), images(8, 32)
    likely = [captioner.loss(x, captioner(x)) for captioner in (greedy, beam)]
    assert greedy(x) != beam(x), "the search finds nothing else: the test shows nothing"
    assert (likely[1] <= likely[0] + 1e-4).float().mean() >= 0.75


def by_hand(captioner, x, caption: str, skip: int) -> torch.Tensor:
    """Mean of -log p over the caption's words after the first `skip`, one image, through BLIP's own forward."""
    vocabulary = captioner.tokenizer.get_vocab()
    words = [vocabulary[word] for word in caption.split()]
    ids = torch.tensor([[vocabulary["[DEC]"], *words]])
    logits = captioner.model(pixel_values=(x - 0.5) / 0.5, input_ids=ids).logits.log_softmax(-1)
    return -torch.stack([logits[0, i, word] for i, word in enumerate(words)][skip:]).mean()


@pytest.mark.parametrize("prompt, skip", [("", 0), ("a photo of", 3)])
def test_blip_loss_counts_the_captions_own_words_only(prompt, skip, make_blip, images):
    """Not the prompt, not the end-of-sentence token, not the padding of shorter captions."""
    captioner, x = make_blip(prompt=prompt), images(3, 32)
    captions = ["a photo of a handwritten seven", "a photo of bold", "a photo of a handwritten nine in thin strokes"]
    expected = torch.stack([by_hand(captioner, x[i : i + 1], captions[i], skip) for i in range(3)])
    torch.testing.assert_close(captioner.loss(x, captions), expected, atol=1e-5, rtol=1e-5)


def test_blip_loss_is_the_same_alone_and_in_a_batch(blip, images):
    x = images(3, 32)
    together = blip.loss(x, TRUTHS)
    alone = torch.cat([blip.loss(x[i : i + 1], TRUTHS[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", [32, 20], ids=["as it is", "resized"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_blip_loss_gradient_equals_finite_differences(batch, side, make_blip, images):
    """Images near 0.5: bicubic resizing clips at 0 and 1, and they stay away from it."""
    captioner = make_blip().double()
    captions = (TRUTHS * 3)[:batch]
    x = (0.4 + 0.2 * images(batch, side, dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(captioner.loss(x, captions).sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction /= direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    h = 1e-4
    with torch.no_grad():
        a, b, c, d = (captioner.loss(x + s * h * direction, captions) for s in (-2, -1, 1, 2))
    expected = (a - 8 * b + 8 * c - d) / (12 * h)
    slope = (gradient * direction).flatten(1).sum(1)
    error = ((slope - expected).norm() / expected.norm()).item()
    assert error <= 1e-6, f"{error:.1e} off finite differences"


def test_captioning_has_no_gradient_and_frozen_weights(blip, images):
    x = images(2, 32).requires_grad_()
    blip(x)
    assert x.grad is None
    assert all(not p.requires_grad for p in blip.parameters())
    assert not blip.model.training


def test_images_are_normalised_once_and_resized_as_transformers_does(blip, images):
    from transformers import BlipImageProcessor

    x = images(2, 48)
    theirs = BlipImageProcessor(
        size={"height": 32, "width": 32},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        resample=3,
        do_rescale=False,
        do_convert_rgb=False,
    )(list(x), return_tensors="pt").pixel_values
    torch.testing.assert_close(blip.pixels(x), theirs, atol=1e-5, rtol=0)


def test_given_captions_follow_the_sample_id_and_a_missing_one_is_named(tmp_path):
    file = tmp_path / "captions.json"
    file.write_text('{"7": "a photo of a cat", "9": "a dog"}')
    given = Given(str(file))
    assert given(torch.zeros(2, 3, 4, 4), Stream(0, "score", (9, 7)).draws()) == ["a dog", "a photo of a cat"]
    with pytest.raises(ValueError, match="no caption for sample 8"):
        given(torch.zeros(1, 3, 4, 4), Stream(0, "score", (8,)).draws())
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"captioner.file=.*sample id -> caption"):
        Given(str(file))
