"""CLIP score: how well a caption fits an image, without a reference (Hessel et al. 2021)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.pretrained import pretrained, require_finite, require_vocabulary

WEIGHT = 2.5  # w of the paper
PREFIX = "A photo depicts "  # the paper's standard configuration
TOKENIZER = {".": "tokenizer*.json"}  # what a folder needs beside the weights


class ClipScore(nn.Module):
    """2.5 * max(cos(image, caption), 0), on the paper's scale: in [0, 2.5], not times 100.

    Args:
        model: a `CLIPModel`, frozen here.
        tokenizer: its tokenizer; longer captions are cut at the text model's length.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.register_buffer("mean", torch.tensor(OPENAI_CLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(OPENAI_CLIP_STD).view(1, 3, 1, 1), persistent=False)
        self.side = int(model.config.vision_config.image_size)
        self.length = int(model.config.text_config.max_position_embeddings)

    def forward(self, x: Tensor, captions: list[str]) -> Tensor:
        """Scores (B,) of images (B, 3, H, W) in [0, 1] and one caption each; differentiable in x."""
        seen = self.model.get_image_features(pixel_values=self.pixels(x)).pooler_output
        texts = [PREFIX + caption for caption in captions]
        words = self.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=self.length)
        words = words.to(x.device)
        said = self.model.get_text_features(
            input_ids=words.input_ids, attention_mask=words.attention_mask
        ).pooler_output
        return WEIGHT * F.cosine_similarity(seen, said, dim=-1).clamp_min(0)

    def pixels(self, x: Tensor) -> Tensor:
        """CLIP's preprocessing without its processor, which would divide by 255 again: short side, crop, normalise."""
        x = x.to(self.mean.dtype)
        height, width = x.shape[-2:]
        short = min(height, width)
        size = (int(self.side * height / short), int(self.side * width / short))
        if size != (height, width):
            x = F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        top, left = (size[0] - self.side) // 2, (size[1] - self.side) // 2
        return (x[..., top : top + self.side, left : left + self.side] - self.mean) / self.std


def load(folder: str) -> ClipScore:
    """CLIP from a folder written by `save_pretrained`: model and tokenizer. Raises ValueError if anything is missing."""
    from transformers import CLIPModel, CLIPTokenizer

    path = weight_files.locate(folder, TOKENIZER)
    model = pretrained(CLIPModel, path, folder)
    require_finite(model, folder)
    tokenizer = CLIPTokenizer.from_pretrained(path)
    require_vocabulary(tokenizer, model.config.text_config.vocab_size, folder)
    return ClipScore(model, tokenizer)
