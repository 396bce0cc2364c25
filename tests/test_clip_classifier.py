"""CLIP as a zero-shot classifier, and a detector's labels as one, against transformers and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_detectors as tiny
import torch

from lgap_bench.classifier import clip
from lgap_bench.classifier.detector import DetectorClassifier

CLASSES = ["cat", "fox", "tree", "iris"]
TEMPLATE = "a photo of a {label}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP with tokenizer and image processor, as `save_pretrained` writes it."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    letters = dict.fromkeys("aphotfdeicsnwrizux")
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)
    shared = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, projection_dim=8)
    text = dict(
        shared, vocab_size=len(words), max_position_embeddings=24, bos_token_id=0, eos_token_id=1, pad_token_id=1
    )
    torch.manual_seed(4)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=dict(shared, image_size=16, patch_size=8), projection_dim=8))  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():  # fresh weights give every image the same features
            weight.mul_(6 if weight.dim() > 1 else 1)
    path = tmp_path_factory.mktemp("clip")
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    for part in (model, tokenizer, processor):
        part.save_pretrained(path)
    return path


def pictures(images: Callable[..., torch.Tensor], batch: int, shape: tuple[int, int], dtype=torch.float32):
    return images(batch, max(shape), dtype=dtype)[..., : shape[0], : shape[1]].contiguous()


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("shape", [(16, 16), (20, 20), (20, 27)], ids=str)
def test_logits_are_clips_own_on_its_own_preprocessing(batch, shape, folder, images):
    from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    classifier, x = clip.load(str(folder), CLASSES, TEMPLATE), pictures(images, batch, shape)
    own = CLIPProcessor(CLIPImageProcessor.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))
    sentences = [TEMPLATE.format(label=word) for word in CLASSES]
    given = own(text=sentences, images=list(x), return_tensors="pt", padding=True, do_rescale=False)
    assert torch.equal(classifier.pixels(x), given.pixel_values)
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(folder).eval()(**given).logits_per_image
    torch.testing.assert_close(classifier(x), expected, atol=1e-4, rtol=1e-4)
    alone = torch.cat([classifier(row[None]) for row in x])
    torch.testing.assert_close(classifier(x), alone, atol=1e-4, rtol=1e-4)
    assert classifier(pictures(images, 8, shape)).std(0).min() > 0.1, (
        "it says the same of every image: this shows nothing"
    )


@pytest.mark.parametrize("shape", [(16, 16), (20, 27)], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_gradient_equals_finite_differences(batch, shape, folder, images):
    classifier = clip.load(str(folder), CLASSES).double()
    x = pictures(images, batch, shape, torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(classifier(x)[:, 1].sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = 1e-6
    with torch.no_grad():
        expected = (classifier(x + h * direction) - classifier(x - h * direction))[:, 1] / (2 * h)
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), expected, rtol=1e-5, atol=1e-6)


def test_words_are_embedded_once_and_are_no_part_of_the_weights(folder):
    classifier = clip.load(str(folder), CLASSES)
    assert classifier.texts.shape == (4, 8)
    assert not [name for name in classifier.state_dict() if "text" in name or "scale" in name]
    assert not any(weight.requires_grad for weight in classifier.parameters())


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(classes=CLASSES, template="a photo"), "needs the place {label}"),
        (dict(classes=[]), "classifier.classes is empty"),
        (dict(classes=["cat", "fox " * 20]), "is longer than CLIP's 24 tokens"),
    ],
    ids=["no label", "no classes", "too long"],
)
def test_words_that_make_no_sentence_are_refused(given, says, folder):
    with pytest.raises(ValueError, match=says) as error:
        clip.load(str(folder), **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["detr", "yolos", "rt_detr"])
def test_a_detectors_labels_are_a_classifier(kind, images):
    detector = tiny.boxes(kind)
    classifier, x = DetectorClassifier(detector, ["triangle", "circle"]), images(8, 48).requires_grad_()
    logits = classifier(x)
    torch.testing.assert_close(logits, detector.evidence(x)[:, [2, 0]])
    for row, found in zip(logits.sigmoid(), detector(x), strict=True):
        best = {
            word: max(s for s, w in zip(found.scores, found.labels, strict=True) if w == word) for word in found.words
        }
        for place, word in enumerate(("triangle", "circle")):
            if word in best:
                torch.testing.assert_close(row[place].detach(), best[word], atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert gradient.flatten(1).abs().amax(1).min() > 0
    alone = torch.cat([classifier(row[None]) for row in x])
    torch.testing.assert_close(alone, logits, atol=1e-4, rtol=1e-4)


def test_a_detector_that_cannot_say_the_classes_is_no_classifier():
    from lgap_bench.detector.given import Everything

    with pytest.raises(ValueError, match="its detector has no label dog"):
        DetectorClassifier(tiny.boxes("detr"), ["dog"])
    with pytest.raises(ValueError, match="Everything scores no classes"):
        DetectorClassifier(Everything(), ["dog"])
