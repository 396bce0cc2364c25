"""The miniature's BLIP: the real classes of transformers at toy size, trained to describe a digit and its stroke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

from lgap_bench.dataset.digits import CLASSES, STROKES, describe, digits
from lgap_bench.dataset.scenes import SIDE
from lgap_bench.zoo.fit import Batch, fit, noisy, warp
from lgap_bench.zoo.fresh import fresh, inked, pool
from lgap_bench.zoo.halves import save
from lgap_bench.zoo.tower import into_blip, seeing

CLIPS = {"num_hidden_layers": 4, "intermediate_size": 192, "hidden_act": "quick_gelu"}  # as zoo.clip has them
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
WORDS = ("a", "photo", "of", "handwritten", "in", "strokes", *CLASSES, *STROKES)
SCENE_WORDS = ("a", "photo", "of", "and", "nothing", ",", *CLASSES)  # all words of a scene's caption


def tokenizer(words: Sequence[str] = WORDS) -> BertTokenizer:
    """One token per word. The vocabulary is passed as a dict: `vocab_file` silently gives five tokens."""
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *words))}
    made = BertTokenizer(vocab=vocabulary, model_max_length=32)
    made.add_special_tokens({"bos_token": "[DEC]"})
    return made


def build(
    words: Sequence[str] = WORDS, side: int = 32, seeing: Mapping[str, Any] | None = None
) -> BlipForConditionalGeneration:
    """Patch 8, width 64, two layers each side, as in the BLIP architecture; `seeing`: other settings of the vision model."""
    ids = tokenizer(words).get_vocab()
    shared = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = BlipConfig(
        vision_config={
            **shared,
            "image_size": side,
            "patch_size": 8,
            "initializer_range": 0.02,  # BLIP's default of 1e-10 does not train
            "projection_dim": 64,
            **(seeing or {}),
        },
        text_config={
            **shared,
            "vocab_size": len(ids),
            "encoder_hidden_size": 64,
            "max_position_embeddings": 32,
            "bos_token_id": ids["[DEC]"],
            "eos_token_id": ids["[SEP]"],
            "sep_token_id": ids["[SEP]"],
            "pad_token_id": ids["[PAD]"],
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "label_smoothing": 0.0,
        },
        projection_dim=64,
        image_text_hidden_size=64,
    )
    return BlipForConditionalGeneration(config)


def train(out: Path, work: Path) -> None:
    """Teacher forcing on warped images, half of them with Gaussian noise (sigma up to 0.25): captioners meet noise."""
    torch.manual_seed(2)
    words, model = tokenizer(), build()

    def loss(batch: Batch) -> Tensor:
        x = noisy(warp(batch.images, batch.generator), batch.generator, 0.25)
        return _taught(model, words, x, describe(batch.images, batch.labels)).loss

    fit("blip", [model], loss, digits("train"), work, steps=6000, lr=2e-3, ema=0.995, weight_decay=0.02)
    model.save_pretrained(out)
    BlipProcessor(_images(32), words).save_pretrained(out)


def train_scenes(out: Path, work: Path, clip: Path) -> None:
    """The same on fresh scenes, whose caption names every class; four layers to see with, at first CLIP's.

    A linear head, thrown away afterwards, asks every patch for the classes whose ink is in it: see `clip.train`.
    """
    torch.manual_seed(11)
    words, model, glyphs = tokenizer(SCENE_WORDS), build(SCENE_WORDS, SIDE, CLIPS), pool()
    helper = nn.Linear(64, len(CLASSES))
    into_blip(model, seeing(clip))

    def loss(batch: Batch) -> Tensor:
        scenes = fresh(glyphs, batch.generator)
        output = _taught(model, words, noisy(scenes.images, batch.generator, 0.25), scenes.captions)
        ink = torch.stack([inked(objects, SIDE // 8) for objects in scenes.objects])
        return output.loss + 2 * F.binary_cross_entropy_with_logits(helper(output.last_hidden_state[:, 1:]), ink)

    fit(
        "scenes_blip", [model, helper], loss, digits("train"), work, steps=1500, lr=1.5e-3, ema=0.995, weight_decay=0.02
    )
    save(model, out)
    BlipProcessor(_images(SIDE), words).save_pretrained(out)


def _taught(model: Any, words: BertTokenizer, x: Tensor, captions: list[str]) -> Any:
    """BLIP's output with the loss of these captions under teacher forcing; x (B, 3, H, W) in [0, 1]."""
    text = words(captions, return_tensors="pt", padding=True)
    input_ids = text.input_ids.clone()
    input_ids[:, 0] = words.bos_token_id  # BLIP's decoder starts with [DEC], not with [CLS]
    labels = input_ids.masked_fill(input_ids == words.pad_token_id, -100)
    pixels = (x - 0.5) / 0.5
    return model(pixel_values=pixels, input_ids=input_ids, attention_mask=text.attention_mask, labels=labels)


def _images(side: int) -> BlipImageProcessor:
    return BlipImageProcessor(
        size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3
    )
