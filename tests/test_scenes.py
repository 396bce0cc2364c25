"""Scenes are the same everywhere, their annotations are what is painted, and splits share no digit."""

import hashlib

import numpy as np
import pytest
import torch

from lgap_bench.dataset import scenes as module
from lgap_bench.dataset.digits import CLASSES, digits
from lgap_bench.dataset.scenes import SIDE, SIZES, captions, compose, glyphs, paint, scenes
from lgap_bench.dataset.words import NOTHING, sentence
from lgap_bench.detector import words
from lgap_bench.task.multi_label import first

SPLITS = tuple(SIZES)
# SHA-256 over the bytes (0 ... 255) of a split's images.
HASHES = {
    "train": "6cb79076b9a37b309a50cea7dc9b7c7f17e10ad9bd6132f3125147b1a5ffe027",
    "validation": "4966481a9d791b37023805c7f4465c21f6881a788020e3b96d1fd7da21965e63",
    "test": "0821d208fd89716adfa046976f25e02871c01cbb1fc1faf0122f05588cf31d2e",
}


@pytest.fixture(scope="module", params=SPLITS)
def data(request):
    return scenes(request.param)


def test_a_split_is_frozen(data):
    pixels = data.images[:, 0].mul(255).round().byte().numpy()
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == HASHES[data.split]
    assert len(data) == SIZES[data.split]


def test_ids_run_through_all_splits():
    assert torch.cat([scenes(split).ids for split in SPLITS]).tolist() == list(range(sum(SIZES.values())))


def test_boxes_are_the_ink_of_their_digit_and_masks_lie_in_them(data):
    for image, things in zip(data.images[:200, 0], data.objects, strict=False):
        assert 1 <= len(things.labels) <= 4
        assert things.boxes.min() >= 0
        assert things.boxes.max() <= 1
        for box, mask in zip((things.boxes * SIDE).round().int().tolist(), things.masks, strict=True):
            left, top, right, bottom = box
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [left, top, right, bottom]
            assert bool((image[mask] > 0).all())
        assert torch.equal(things.masks.any(0), image > 0)


def test_labels_presence_and_captions_name_the_objects(data):
    assert torch.equal(data.labels, first(data.present))
    for row, things in enumerate(data.objects):
        assert sorted(set(things.labels.tolist())) == data.present[row].nonzero().flatten().tolist()
        assert data.caption_of(row) == sentence([CLASSES[label] for label in sorted(set(things.labels.tolist()))])


def test_no_scene_holds_a_digit_of_another_split():
    ink = {split: {glyph.ink.tobytes() for glyph in _pool(split)} for split in SPLITS}
    for split in SPLITS:
        used = {thing.glyph.ink.tobytes() for scene in module._composed(split) for thing in scene}
        assert used <= ink[split]
        assert not any(used & ink[other] for other in SPLITS if other != split)


def test_dense_scenes_are_many_and_overlap():
    data = scenes("test")
    counts = torch.tensor([len(things.labels) for things in data.objects])
    assert counts.bincount().tolist() == [0, 126, 254, 225, 395]
    dense = [things.masks.sum(0).max() > 1 for things in data.objects if len(things.labels) == 4]
    assert sum(dense) > len(dense) / 4


def test_a_first_n_is_a_random_draw_over_classes():
    shares = scenes("train").present.float()
    assert torch.allclose(shares[:1000].mean(0), shares.mean(0), atol=0.05)
    assert shares.mean(0).min() > 0.2


@pytest.mark.parametrize("count", (1, 3, 8))
def test_any_number_of_scenes_is_painted(count):
    draw = np.random.RandomState(0)
    made = [compose(_pool("validation"), draw) for _ in range(count)]
    assert paint(made).shape == (count, 3, SIDE, SIDE)
    assert torch.equal(paint(made)[0], paint(made[:1])[0])


def test_no_object_at_all_has_a_sentence_too():
    empty = compose(_pool("validation"), np.random.RandomState(0), counts=(0,))
    assert captions(module.presence([empty])) == [NOTHING]
    assert module.annotate(empty).boxes.shape == (0, 4)
    assert paint([empty]).sum() == 0


def test_the_sentence_names_each_word_once_in_the_order_given():
    assert words.sentence is sentence
    assert sentence([]) == "a photo of nothing"
    assert sentence(["seven"]) == "a photo of a seven"
    assert sentence(["three", "seven", "three"]) == "a photo of a three and a seven"
    assert sentence(["one", "three", "nine"]) == "a photo of a one, a three and a nine"


def _pool(split):
    source = digits(split)
    return glyphs(source.images[:], source.labels)
