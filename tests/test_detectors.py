"""What detectors find and how it is attacked, against transformers' own post-processing and finite differences."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_detectors as tiny
import torch
from torch import nn

from lgap_bench.dataset.base import DataSet, Objects
from lgap_bench.detector import boxes, masks, odds, superpoint
from lgap_bench.detector.base import Detector, Found, decode, encode, require_names, words_of
from lgap_bench.detector.cam import Saliency
from lgap_bench.detector.given import Everything, Oracle
from lgap_bench.detector.superpoint import SuperPoint, mixture
from lgap_bench.noise import Stream

KINDS = ["detr", "yolos", "rt_detr"]


def _grain(seed: int, side: int) -> torch.Tensor:
    """Grey with a little grain: on a flat image maxima tie, and there is no gradient to be compared."""
    generator = torch.Generator().manual_seed(90 + seed)
    return 0.4 + 0.05 * torch.rand(3, side, side, generator=generator, dtype=torch.float64)


def scene(count: int, side: int = 48, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A bright textured square at a place of its own on grey, the i-th the same however many are asked for."""
    x = torch.stack([_grain(i, side) for i in range(count)]).to(dtype)
    for i in range(count):
        grain = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        top, left = 3 + 3 * (i % 6), 22 - 3 * (i % 6)
        x[i, :, top : top + 16, left : left + 16] = (0.3 + 0.5 * grain).to(dtype)
    return x


def points() -> Detector:
    return SuperPoint(*tiny.superpoint())


def saliency(smooth) -> Detector:
    return Saliency(smooth(48, 5).requires_grad_(False), ("a", "b", "c", "d", "e"))


def same(one: Found, other: Found) -> None:
    assert one.labels == other.labels
    torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one.boxes, other.boxes, atol=1e-5, rtol=1e-4)
    assert (one.mask != other.mask).sum() <= 2  # a pixel whose centre lies on an edge


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", [*KINDS, "superpoint", "cam"])
def test_an_image_is_seen_alike_in_any_batch(kind, batch, smooth):
    detector = {"superpoint": points, "cam": lambda: saliency(smooth)}.get(kind, lambda: tiny.boxes(kind))()
    x = scene(8)
    together = detector(x)
    assert len({encode("", each.mask) for each in together}) > 1 or kind in ("detr", "yolos")
    for start in range(0, 8, batch):
        for alone, among in zip(detector(x[start : start + batch]), together[start : start + batch], strict=True):
            same(alone, among)


@pytest.mark.parametrize("side", [48, 40], ids=["as it is", "resized"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_is_what_transformers_own_post_processing_finds(kind, side):
    detector, x = tiny.boxes(kind), scene(3, side)
    pixels = tiny.processor(kind)(list(x), return_tensors="pt", do_rescale=False).pixel_values
    torch.testing.assert_close(detector.pixels(x), pixels, atol=1e-6, rtol=0)
    with torch.no_grad():
        out = detector.model(pixel_values=pixels)
        scores = out.logits.softmax(-1)[..., :-1].amax(-1) if kind != "rt_detr" else out.logits.sigmoid().flatten()
    detector.threshold = float(scores.median())  # some are found, some are not
    theirs = tiny.processor(kind).post_process_object_detection(out, detector.threshold)
    assert sum(len(each["scores"]) for each in theirs) > 3
    for ours, each in zip(detector(x), theirs, strict=True):
        real = each["labels"] != 0  # its N/A
        order = each["scores"][real].argsort(descending=True, stable=True)
        assert ours.labels == tuple(tiny.LABELS[k] for k in each["labels"][real][order].tolist())
        torch.testing.assert_close(ours.scores, each["scores"][real][order])
        torch.testing.assert_close(ours.boxes, each["boxes"][real][order].clamp(0, 1))


def test_a_label_that_is_no_class_is_never_said():
    detector = tiny.boxes("detr")
    assert detector.names == ("circle", "square", "triangle")
    logits, places = torch.zeros(1, 2, 5), torch.full((1, 2, 4), 0.5)
    logits[0, 0, 0], logits[0, 1, 2] = 20.0, 20.0
    detector.output = lambda x: SimpleNamespace(logits=logits, pred_boxes=places)
    (found,) = detector(torch.rand(1, 3, 48, 48))
    assert found.labels == ("square",)
    assert found.words == ("square",)


@pytest.mark.parametrize("kind", [*KINDS, "superpoint"])
def test_nothing_found_is_an_empty_mask(kind):
    detector = points() if kind == "superpoint" else tiny.boxes(kind, 1 - 1e-9)
    if kind == "superpoint":
        detector.model.keypoint_decoder.keypoint_threshold = 2.0
    for found in detector(scene(3)):
        assert found.labels == found.words == ()
        assert found.boxes.shape == (0, 4)
        assert found.mask.shape == (48, 48)
        assert not found.mask.any()


def finite_differences(call, x: torch.Tensor, h: float = 1e-6) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient's slope along one direction per image, and the central difference along it."""
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction /= direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(call(x).sum(), x)
    with torch.no_grad():
        expected = (call(x + h * direction) - call(x - h * direction)) / (2 * h)
    return (gradient * direction).flatten(1).sum(1), expected.reshape(len(x), -1).sum(1)


@pytest.mark.parametrize("side", [48, 40], ids=["as it is", "resized"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("what", ["presence", "evidence"])
@pytest.mark.parametrize("kind", ["detr", "yolos", "superpoint"])
def test_gradient_equals_finite_differences(kind, what, batch, side):
    detector = (points() if kind == "superpoint" else tiny.boxes(kind)).double()
    if what == "evidence" and kind == "superpoint":
        assert not hasattr(detector, "evidence")
        return
    slope, expected = finite_differences(getattr(detector, what), scene(batch, side, torch.float64))
    assert expected.abs().min() > 0
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", [*KINDS, "superpoint"])
def test_lowering_the_presence_makes_things_vanish(kind):
    """Of RT-DETR, whose gradient is that of its decoder alone, only that there is one: it need not lead down."""
    detector = points() if kind == "superpoint" else tiny.boxes(kind)
    x = scene(2)
    start = detector.presence(x)
    assert start.shape == (2,)
    for _ in range(5):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(detector.presence(x).sum(), x)
        assert gradient.isfinite().all()
        x = (x - 0.25 / 255 * gradient.sign()).clamp(0, 1)
        assert (gradient.flatten(1).abs().amax(1) > 0).all()
    assert (detector.presence(x) < start).all() or kind == "rt_detr"


def test_log_odds_are_exact_where_the_probability_rounds_to_one():
    logits = torch.tensor([[[60.0, 1.0, 0.0], [0.0, 3.0, -1.0]]])
    said = torch.tensor([0, 1])
    expected = torch.tensor([[60 - math.log(math.e + 1), 3 - math.log(1 + 1 / math.e)]])
    torch.testing.assert_close(odds.of_classes(logits, said, softmax=True), expected)
    torch.testing.assert_close(odds.of_classes(logits, said, softmax=False), torch.tensor([[60.0, 3.0]]))
    present = nn.functional.softplus(expected - math.log(9)).sum(1)
    torch.testing.assert_close(odds.presence(logits, said, True, 0.9), present)


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.5])
def test_a_threshold_outside_0_1_is_refused(threshold):
    with pytest.raises(ValueError, match=r"detector\.threshold=.* is not in \(0, 1\)"):
        tiny.boxes("detr", threshold)


def test_labels_that_are_not_the_data_sets_are_refused():
    detector = tiny.boxes("detr", rename={"circle": "ring"})
    assert detector.names == ("ring", "square", "triangle")
    require_names(detector, ["ring", "square"])  # what it can say beside is there, whoever asks
    require_names(Detector(), ["anything"])  # names nothing, claims nothing
    with pytest.raises(
        ValueError, match=r"labels are not the data set's: circle and 1 more of 3 .* says ring, triangle"
    ):
        require_names(detector, ["circle", "square", "dog"])


@pytest.mark.parametrize("kind", [*KINDS, "superpoint"])
def test_saved_and_loaded_it_finds_the_same(kind, tmp_path):
    detector = points() if kind == "superpoint" else tiny.boxes(kind)
    processor = tiny.superpoint()[1] if kind == "superpoint" else tiny.processor(kind)
    detector.model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    if kind == "superpoint":
        again = superpoint.load(str(tmp_path))
    else:
        again = boxes.load(str(tmp_path), detector.threshold, classes=["circle", "square"])
        with pytest.raises(ValueError, match="labels are not the data set's: dog is none of them"):
            boxes.load(str(tmp_path), 0.5, classes=["dog"])
    for one, other in zip(again(scene(3)), detector(scene(3)), strict=True):
        same(one, other)


def test_keypoints_fall_into_as_many_groups_as_there_are():
    generator = np.random.default_rng(0)
    places = np.array([[10.0, 10], [40, 12], [25, 40]])
    shares, means, covariances = mixture(np.concatenate([at + generator.normal(size=(20, 2)) for at in places]), 5)
    assert len(shares) == 3
    assert np.abs(means[np.lexsort(means.T[::-1])] - places[[0, 2, 1]]).max() < 1
    assert covariances.shape == (3, 2, 2)
    for count in (0, 1, 2, 3):
        shares, means, covariances = mixture(np.arange(2.0 * count).reshape(count, 2), 5)
        assert len(shares) == len(means) == len(covariances) == min(count, 1)


def test_superpoint_sees_luminance_and_not_red_alone():
    detector, x = points(), scene(1)
    grey = (x * torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(detector.grey(x), grey.expand(-1, 3, -1, -1))
    assert detector(x)[0].boxes.shape[1] == 4


def test_cam_marks_the_share_of_the_image_that_moves_the_top_logit(smooth):
    class Corner(nn.Module):
        def forward(self, x):
            return torch.stack([3 * x[..., :12, :12].sum((1, 2, 3)), x.sum((1, 2, 3))], dim=1)

    (found,) = Saliency(Corner(), ("corner", "all"), share=1 / 16, blur=0)(0.5 + 0 * scene(1))
    assert found.labels == ("all",) or found.mask[:12, :12].all()
    assert int(found.mask.sum()) == 144
    assert int(saliency(smooth)(scene(1))[0].mask.sum()) == 576
    with pytest.raises(ValueError, match="2 logits for 1 classes"):
        Saliency(Corner(), ("corner",))(scene(1))
    with pytest.raises(ValueError, match=r"detector\.share=1 is not in \(0, 1\)"):
        Saliency(Corner(), ("corner",), share=1)


def test_the_whole_image_and_the_true_objects():
    held = [
        Objects(torch.tensor([1]), torch.tensor([[0.0, 0.0, 0.5, 0.25]])),
        Objects(torch.tensor([]), torch.zeros(0, 4)),
    ]
    labels = torch.zeros(2, dtype=torch.int64)
    data = DataSet(
        "toy", "test", torch.rand(2, 3, 8, 8), labels, 50 + torch.arange(2), ("a", "b"), "{label}", objects=held
    )
    x = torch.rand(3, 3, 8, 8)
    found = Oracle(data)(x, Stream(0, "score", (51, 50, 51)).draws())
    assert [each.labels for each in found] == [(), ("b",), ()]
    assert [int(each.mask.sum()) for each in found] == [0, 8, 0]
    assert not Oracle.by_image
    whole = Everything()(x)
    assert [(each.labels, bool(each.mask.all())) for each in whole] == [((), True)] * 3
    with pytest.raises(ValueError, match="Everything has no presence"):
        Everything().presence(x)


def test_boxes_segments_and_ellipses_become_masks():
    held = masks.from_boxes(torch.tensor([[0.25, 0.5, 0.75, 1.0], [0, 0, 0.3, 0.3]]), (8, 4))
    assert held.shape == (2, 8, 4)
    assert held[0].nonzero().tolist() == [[y, x] for y in range(4, 8) for x in (1, 2)]
    assert int(masks.union(held).sum()) == 8 + 2
    assert masks.union(held[:0]).shape == (8, 4)
    one = torch.zeros(5, 5, dtype=torch.bool)
    one[2, 2] = True
    assert [int(masks.dilated(one, k).sum()) for k in (0, 1, 2)] == [1, 9, 25]
    assert masks.from_segments(one[None], (10, 10)).sum() == 4
    assert masks.from_segments(one[None][:0], (10, 10)).shape == (0, 10, 10)
    disc = masks.from_ellipses(torch.tensor([[16.0, 8.0]]), torch.diag(torch.tensor([9.0, 1.0]))[None], (16, 32))
    assert abs(int(disc.sum()) - math.pi * 6 * 2) < 4


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (48, 48)])
@pytest.mark.parametrize("sentence", ["", "a photo of a cat: 3x4, and a dog", "été 猫\ttab"])
def test_a_sentence_and_a_mask_go_through_one_text(sentence, size):
    mask = torch.rand(size, generator=torch.Generator().manual_seed(1)) > 0.5
    text = encode(sentence, mask)
    assert words_of(text) == sentence
    assert words_of(sentence) == sentence
    said, seen = decode(text)
    assert said == sentence
    assert torch.equal(seen, mask)


@pytest.mark.parametrize(
    "damage", [lambda t: t[:-5], lambda t: t.replace("3x5", "9x9"), lambda t: "a cat", lambda t: t + "!"]
)
def test_a_damaged_text_is_refused_in_one_line(damage):
    with pytest.raises(ValueError, match="holds no whole mask") as error:
        decode(damage(encode("a cat", torch.ones(3, 5, dtype=torch.bool))))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="separates it from a mask"):
        encode("a\x1fb", torch.ones(3, 5, dtype=torch.bool))
