"""The miniature's BLIP: the real classes of transformers at toy size, trained to describe a digit and its stroke."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

from lgap_bench.dataset.digits import CLASSES, STROKES, describe, digits
from lgap_bench.zoo.fit import Batch, fit, warp

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
WORDS = ("a", "photo", "of", "handwritten", "in", "strokes", *CLASSES, *STROKES)


def tokenizer() -> BertTokenizer:
    """One token per word. The vocabulary is passed as a dict: `vocab_file` silently gives five tokens."""
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    made = BertTokenizer(vocab=vocabulary, model_max_length=32)
    made.add_special_tokens({"bos_token": "[DEC]"})
    return made


def build() -> BlipForConditionalGeneration:
    """Patch 8, width 64, two layers each side, as in the BLIP architecture."""
    ids = tokenizer().get_vocab()
    shared = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = BlipConfig(
        vision_config={
            **shared,
            "image_size": 32,
            "patch_size": 8,
            "initializer_range": 0.02,  # BLIP's default of 1e-10 does not train
            "projection_dim": 64,
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
        text = words(describe(batch.images, batch.labels), return_tensors="pt", padding=True)
        input_ids = text.input_ids.clone()
        input_ids[:, 0] = words.bos_token_id  # BLIP's decoder starts with [DEC], not with [CLS]
        x = warp(batch.images, batch.generator)
        sigma = 0.25 * torch.rand(len(x), 1, 1, 1, generator=batch.generator)
        sigma[: len(x) // 2] = 0
        x = (x + sigma * torch.randn(x.shape, generator=batch.generator)).clamp(0, 1)
        labels = input_ids.masked_fill(input_ids == words.pad_token_id, -100)
        pixels = (x - 0.5) / 0.5
        return model(pixel_values=pixels, input_ids=input_ids, attention_mask=text.attention_mask, labels=labels).loss

    fit("blip", [model], loss, digits("train"), work, steps=6000, lr=2e-3, ema=0.995, weight_decay=0.02)
    model.save_pretrained(out)
    images = BlipImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3)
    BlipProcessor(images, words).save_pretrained(out)
