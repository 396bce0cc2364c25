"""Captions measured: label words, BLEU, ROUGE-L and CLIP score by hand, and in a record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lgap_bench.cell.compose import composed, resolved
from lgap_bench.cell.identity import identity
from lgap_bench.measure import run_cell
from lgap_bench.metric import clip
from lgap_bench.metric.accuracy import accuracy
from lgap_bench.metric.caption import bleu, names_label, reached, rouge_l, says
from lgap_bench.runtime import weights as weight_files

SEVEN = "a photo of a handwritten seven"


@pytest.mark.parametrize(
    "caption, reference, score",
    [
        (SEVEN, SEVEN, 1.0),
        ("A Photo of a handwritten SEVEN ", SEVEN, 1.0),
        ("", "", 1.0),
        ("", SEVEN, 0.0),
        (SEVEN, "", 0.0),
        ("bold", "bold", 1.0),  # effective order: no bigrams to miss
        ("a photo of a handwritten three", SEVEN, (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25),
        ("a photo", "a photo of a cat", np.exp(1 - 5 / 2)),  # brevity penalty
        ("a cat sat", "a dog sat", (2 / 3 * 1 / 4 * 1 / 4) ** (1 / 3)),  # exponential smoothing: 1 / (2 * 2), 1 / (4 * 1)
        ("x y z", "a b c", 0.0),
    ],
)  # fmt: skip
def test_bleu_equals_what_paper_and_pencil_give(caption, reference, score):
    assert bleu(caption, reference) == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize(
    "caption, reference, score",
    [
        (SEVEN, SEVEN, 1.0),
        ("a b c d", "a c x d", 2 * 3 / 8),
        ("b a", "a b", 0.5),  # order counts
        ("a a a", "a", 0.5),  # a word is met once
        ("a photo", SEVEN, 2 * 2 / 8),
        ("A Photo, of", "a photo of", 1.0),
        ("", "", 1.0),
        ("", "a", 0.0),
        ("x", "y", 0.0),
    ],
)
def test_rouge_l_equals_what_paper_and_pencil_give(caption, reference, score):
    assert rouge_l(caption, reference) == pytest.approx(score)
    assert rouge_l(reference, caption) == pytest.approx(score), "F1 is symmetric"


@pytest.mark.parametrize(
    "caption, label, named",
    [
        ("a cat on a mat", 0, True),
        ("A CAT.", 0, True),
        ("a category of scatter", 0, False),
        ("two kittens", 0, True),
        ("a kitten", 0, False),  # only what is listed
        ("a fire engine on a road", 1, True),
        ("a fire and an engine", 1, False),
        ("the number 0", 2, True),
        ("the number 10", 2, False),
        ("", 0, False),
    ],
)
def test_a_label_is_named_by_its_word_or_a_synonym_and_never_by_a_part_of_a_word(caption, label, named):
    classes = ("cat", "truck", "zero")
    synonyms = {"cat": ["kittens"], "truck": ["fire engine"], "zero": ["0"]}
    assert names_label(caption, label, classes, synonyms) is named
    assert names_label("a cat", 0, classes)
    assert not names_label("two kittens", 0, classes)


def test_a_target_is_reached_by_the_class_or_by_the_sentence():
    classes = ("cat", "dog")
    assert reached("a hound", 1, classes, {"dog": ["hound"]}, None)
    assert not reached("a cat", 1, classes, None, "a cat")
    assert reached("there is a red car here", -1, classes, None, "a red car")
    assert not reached("a red cart", -1, classes, None, "a red car")
    assert not reached("a cat", -1, classes, None, None)
    assert says("of a+b", "a+b")


def test_accuracy_among_some_is_that_of_the_same_images_alone():
    random = np.random.default_rng(0)
    correct = random.random((2, 30, 5)) < 0.6
    chosen = np.zeros((2, 30), bool)
    chosen[:, 4:19] = True
    assert accuracy(correct, among=chosen) == accuracy(correct[:, 4:19])
    assert accuracy(correct, among=np.ones((2, 30), bool)) == accuracy(correct)


def test_accuracy_among_a_group_that_changes_from_seed_to_seed_counts_its_pairs():
    correct = np.array([[[1, 1], [0, 0], [1, 0]], [[0, 0], [1, 1], [1, 1]]], bool)
    among = np.array([[1, 0, 1], [0, 0, 1]], bool)
    found = accuracy(correct, among=among)
    assert found.mean == pytest.approx(100 * (1 + 0.5 + 1) / 3)
    assert found.any_of_k == pytest.approx(100 * 2 / 3)
    assert found.low <= found.mean <= found.high
    alone = accuracy(correct, among=np.array([[1, 0, 0], [0, 0, 1]], bool))
    assert (alone.mean, alone.high) == (100, 100)
    assert 0 < alone.low < 100, "certainty from two images"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP with its tokenizer, as `save_pretrained` writes it."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    letters = "aphotfdeicsnwrizu0123"
    alphabet = [*dict.fromkeys(letters), *(f"{c}</w>" for c in dict.fromkeys(letters))]
    words = ["<|startoftext|>", "<|endoftext|>", *alphabet]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)
    shared = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, projection_dim=8)
    text = dict(
        shared, vocab_size=len(words), max_position_embeddings=40, bos_token_id=0, eos_token_id=1, pad_token_id=1
    )
    torch.manual_seed(4)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=dict(shared, image_size=16, patch_size=8), projection_dim=8))  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():  # fresh weights give every image the same features
            weight.mul_(6 if weight.dim() > 1 else 1)
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("side", [16, 20], ids=["as it is", "resized"])
def test_clip_score_is_the_papers_formula_on_clips_own_preprocessing(batch, side, clip_folder, images):
    from transformers import CLIPImageProcessor

    score = clip.load(str(clip_folder))
    x, captions = images(batch, side), ["two", "a photo of a", "zero", "a wren"] * 2
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_rescale=False)
    pixels = processor(list(x), return_tensors="pt", do_convert_rgb=False).pixel_values
    expected = []
    for row, caption in zip(pixels, captions[:batch], strict=True):
        words = score.tokenizer([f"A photo depicts {caption}"], return_tensors="pt")
        out = score.model(input_ids=words.input_ids, attention_mask=words.attention_mask, pixel_values=row[None])
        expected.append(2.5 * max(float((out.image_embeds * out.text_embeds).sum()), 0.0))
    found = score(x, captions[:batch])
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)
    if batch == 8:
        assert (found == 0).any() or len(set(found.tolist())) == 8


def test_clip_score_is_never_negative_and_cuts_long_captions(clip_folder, images):
    score, x = clip.load(str(clip_folder)), images(1, 16)
    found = torch.cat([score(x, [word]) for word in ("a", "0", "zero 123", "photo", "dew", "s" * 300)])
    assert (found >= 0).all()
    assert (found <= 2.5).all()
    with torch.no_grad():
        score.model.text_projection.weight.neg_()
    other = torch.cat([score(x, [word]) for word in ("a", "0", "zero 123", "photo", "dew", "s" * 300)])
    assert ((found == 0) != (other == 0)).all(), "turning the text features around does not turn the sign around"


def named(*overrides: str) -> dict:
    return identity(resolved(overrides), "cpu")


def test_what_is_unused_is_not_part_of_the_identity_and_what_is_used_is(clip_folder):
    plain = named()
    assert "clip" not in plain
    assert "unrelated" not in json.dumps(plain)
    assert plain["attack"]["caption_target"] is None
    assert named(f"clip={clip_folder}")["clip"] == weight_files.fingerprint(str(clip_folder))
    assert named("dataset.unrelated=a photo") == plain
    assert named("dataset.unrelated=a photo", "captioner=oracle") == named("captioner=oracle")
    unrelated = named("attack=caption_unrelated", "dataset.unrelated=a photo")
    assert unrelated["unrelated"] == "a photo"
    assert unrelated != named("attack=caption_unrelated")
    assert named("+dataset.synonyms.zero=[nought]")["dataset"]["synonyms"] == {"zero": ["nought"]}
    assert named("attack=caption_nearest")["attack"]["caption_target"] == "nearest"


def test_a_record_with_clip_has_its_columns_and_the_rest_is_the_same(clip_folder, tmp_path):
    few = ["n=3", "chunk=2", "score_draws=2", "threads=1", "device=cpu", "attack.steps=2", f"outputs={tmp_path}",
           "attack=caption_nearest"]  # fmt: skip
    plain, scored = (run_cell(cfg, cfg.hydra.runtime.choices)
                     for cfg in (composed([*few]), composed([*few, f"clip={clip_folder}"])))  # fmt: skip
    without, found = plain.samples(), scored.samples()
    clips = {"clean_caption_clip", "attacked_caption_clip"}
    assert set(found) - set(without) == clips
    assert {key: value for key, value in found.items() if key not in clips} == without
    assert {"attacked_caption_bleu", "attacked_caption_rouge", "attacked_caption_target", "caption_target_label"} <= set(without)  # fmt: skip
    for i in range(3):
        attacked, clean = without["attacked_caption"][i], without["clean_caption"][i]
        assert without["attacked_caption_bleu"][i] == bleu(attacked, clean)
        assert without["attacked_caption_rouge"][i] == rouge_l(attacked, clean)
        assert without["caption_target_label"][i] != without["label"][i]
        if attacked == clean:
            assert found["attacked_caption_clip"][i] == found["clean_caption_clip"][i], "not the same image"
    assert scored.summary()["clean_caption_clip"] == pytest.approx(np.mean(found["clean_caption_clip"]))
    assert plain.summary()["attacked_caption_bleu"] == pytest.approx(100 * np.mean(without["attacked_caption_bleu"]))
