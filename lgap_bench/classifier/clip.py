"""CLIP (Radford et al. 2021) as a zero-shot classifier: how well an image fits each class's sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgap_bench.runtime import examined
from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.pixels import Pixels
from lgap_bench.runtime.pretrained import caption_length, pretrained, require_finite, require_vocabulary

TOKENIZER = {".": "tokenizer*.json"}  # what a folder needs beside the weights


class Clip(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> logits (B, K) = exp(logit_scale) * cos(image, sentence). Weights frozen.

    The sentences are fixed, so they are embedded once; the text model is not kept. Deterministic, differentiable in x.

    Args:
        model: a `CLIPModel`.
        tokenizer: its tokenizer.
        processor: its image processor: size, crop, filter, mean and std.
        classes: K words.
        template: a sentence with one `{label}`.
    """

    texts: Tensor
    scale: Tensor

    def __init__(self, model: Any, tokenizer: Any, processor: Any, classes: Sequence[str], template: str) -> None:
        super().__init__()
        if "{label}" not in template:
            raise ValueError(f"classifier.template={template}: it needs the place {{label}} for the class name")
        if not classes:
            raise ValueError("classifier.classes is empty: give the data set's, ${dataset.classes}")
        model = model.eval().requires_grad_(False)
        sentences = [template.replace("{label}", word) for word in classes]
        self.register_buffer("texts", _embedded(model, tokenizer, sentences), persistent=False)
        self.register_buffer("scale", model.logit_scale.detach().exp(), persistent=False)
        self.vision, self.projection = model.vision_model, model.visual_projection
        self.pixels = Pixels(processor, "classifier")

    def forward(self, x: Tensor) -> Tensor:
        """Logits; larger is likelier, and no class excludes another."""
        pixels = self.pixels(x).to(self.texts.dtype)
        image = self.projection(self.vision(pixel_values=pixels).pooler_output)
        return self.scale * F.normalize(image, dim=-1) @ self.texts.T


@torch.no_grad()
def _embedded(model: Any, tokenizer: Any, sentences: list[str]) -> Tensor:
    """Sentences -> (K, D), each of length 1. Raises ValueError for one that the text model would cut: its end names a class."""
    length = caption_length(tokenizer, model.config.text_config)
    words = tokenizer(sentences, return_tensors="pt", padding=True)
    if words.input_ids.shape[1] > length:
        longest = max(sentences, key=lambda text: len(tokenizer(text).input_ids))
        raise ValueError(f"classifier.template: {longest!r} is longer than CLIP's {length} tokens: shorten it")
    given = {"input_ids": words.input_ids.to(model.device), "attention_mask": words.attention_mask.to(model.device)}
    return F.normalize(model.get_text_features(**given).pooler_output, dim=-1)


def examine(weights: str) -> None:
    """Raise ValueError for what `load` would refuse, by headers, configs and the tokenizer alone."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = weight_files.locate(weights, TOKENIZER)
    examined.examine(CLIPModel, folder, weights)
    words = CLIPConfig.from_pretrained(folder).text_config.vocab_size
    require_vocabulary(CLIPTokenizer.from_pretrained(folder), words, weights)
    CLIPImageProcessor.from_pretrained(folder)


def load(weights: str, classes: Sequence[str], template: str = "a photo of a {label}") -> Clip:
    """CLIP from a folder written by `save_pretrained`: model, tokenizer and image processor."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = weight_files.locate(weights, TOKENIZER)
    model = pretrained(CLIPModel, folder, weights)
    require_finite(model, weights)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    require_vocabulary(tokenizer, model.config.text_config.vocab_size, weights)
    return Clip(model, tokenizer, CLIPImageProcessor.from_pretrained(folder), classes, template)
