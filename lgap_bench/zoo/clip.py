"""The miniature's CLIP: the real class of transformers at toy size, which tells the digits of a scene by prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from lgap_bench.dataset.digits import CLASSES, digits
from lgap_bench.dataset.scenes import SIDE
from lgap_bench.zoo.captioner import SCENE_WORDS
from lgap_bench.zoo.fit import Batch, fit, noisy
from lgap_bench.zoo.fresh import fresh, inked, pool
from lgap_bench.zoo.halves import save
from lgap_bench.zoo.latent import LENGTH, tokenizer

PATCH = 8
PROMPTS = [f"a photo of a {label}" for label in CLASSES]


def build() -> CLIPModel:
    """Patch 8, so 36 patches, width 64 and four layers to see with; two layers to read the prompts with."""
    words = tokenizer(SCENE_WORDS)
    shared = {"hidden_size": 64, "num_attention_heads": 4, "projection_dim": 64}
    config = CLIPConfig(
        vision_config={
            **shared,
            "intermediate_size": 192,
            "num_hidden_layers": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        text_config={
            **shared,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "vocab_size": len(words.get_vocab()),
            "max_position_embeddings": LENGTH,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.pad_token_id,
        },
        projection_dim=64,
    )
    return CLIPModel(config)


def train(out: Path, work: Path) -> None:
    """Each prompt's logit is logit_scale * cosine, trained as that class's own yes or no (SigLIP's loss without bias).

    Every patch is asked the same about the ink in it: whole images alone take a transformer of this size several times
    as long. Half of the images carry a little noise (sigma up to 0.1): a purifier's images are not quite clean either.
    """
    torch.manual_seed(6)
    words, glyphs = tokenizer(SCENE_WORDS), pool()
    model: Any = build()
    prompts = words(PROMPTS, padding="max_length", max_length=LENGTH, return_tensors="pt")

    def loss(batch: Batch) -> Tensor:
        scenes = fresh(glyphs, batch.generator)
        logits = _token_logits(model, (noisy(scenes.images, batch.generator, 0.1) - 0.5) / 0.5, prompts)
        whole = F.binary_cross_entropy_with_logits(logits[:, 0], scenes.present.float())
        patches = torch.stack([inked(objects, SIDE // PATCH) for objects in scenes.objects])
        return whole + 2 * F.binary_cross_entropy_with_logits(logits[:, 1:], patches)

    fit("clip", [model], loss, digits("train"), work, steps=3000, lr=1.5e-3, ema=0.995, weight_decay=0.02)
    save(model, out)
    words.save_pretrained(out)
    CLIPImageProcessor(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(out)


def _token_logits(model: Any, pixels: Tensor, prompts: Any) -> Tensor:
    """CLIP's logits of every token, (B, 1 + patches, prompts); the first is the image's own."""
    seen = model.vision_model(pixel_values=pixels).last_hidden_state
    seen = F.normalize(model.visual_projection(model.vision_model.post_layernorm(seen)), dim=-1)
    read = F.normalize(model.text_projection(model.text_model(**prompts).pooler_output), dim=-1)
    return model.logit_scale.exp() * seen @ read.T
