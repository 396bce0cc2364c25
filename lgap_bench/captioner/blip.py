"""BLIP captions (Li et al. 2022): greedy or beam search without gradient, and the teacher-forced loss with one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgap_bench.noise import Noise
from lgap_bench.runtime import examined
from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.pretrained import pretrained, require_finite, require_vocabulary


class Blip(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> one sentence each. Deterministic; weights frozen.

    Args:
        model: a `BlipForConditionalGeneration`.
        processor: its `BlipProcessor`: tokenizer, mean, std and size; resizing here is differentiable (bicubic).
        prompt: the sentence's beginning.
        keep_prompt: whether the prompt is part of the caption (BLIP's own code takes it off).
        instead_of: beginning of true captions that the prompt stands for, so that the loss asks about the class alone and not
            about the template's other words; used where the prompt is not kept.
        beams, min_length, max_length: of the search, lengths in new tokens.
    """

    by_image = True  # no draw decides: see `captioner.seen`
    model: Any  # a transformers class, whose config nn.Module would hide
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Any,
        processor: Any,
        prompt: str = "",
        beams: int = 1,
        min_length: int = 1,
        max_length: int = 20,
        keep_prompt: bool = True,
        instead_of: str = "",
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = processor.tokenizer
        images = processor.image_processor
        self.register_buffer("mean", torch.tensor(images.image_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(images.image_std).view(1, 3, 1, 1), persistent=False)
        self.size = _size(images.size)
        self.prompt, self.beams, self.min_length, self.max_length = prompt, beams, min_length, max_length
        self.keep_prompt, self.instead_of = keep_prompt, instead_of

    @torch.no_grad()
    def forward(self, x: Tensor, noise: Noise | None = None) -> list[str]:
        """The captions, stripped; with the prompt if it is kept."""
        prompt = self.tokenizer([self.prompt] * len(x), return_tensors="pt").to(x.device)
        tokens = self.model.generate(
            pixel_values=self.pixels(x),
            input_ids=prompt.input_ids,
            attention_mask=prompt.attention_mask,
            num_beams=self.beams,
            min_new_tokens=self.min_length,
            max_new_tokens=self.max_length,
            do_sample=False,
        )
        if not self.keep_prompt:
            tokens = tokens[:, len(self.tokenizer(self.prompt).input_ids) - 1 :]  # [DEC] and the prompt, without [SEP]
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def loss(self, x: Tensor, captions: list[str]) -> Tensor:
        """-log p(caption | x) per image, (B,), averaged over the caption's own tokens; differentiable in x.

        The end-of-sentence token is left out: a true caption is a beginning ("a photo of a truck"), and going on
        ("... on a road") is no mistake. So is the prompt, which the captioner is given.
        """
        if not self.keep_prompt:
            captions = [f"{self.prompt} {text.removeprefix(self.instead_of).strip()}" for text in captions]
        words = self.tokenizer(captions, return_tensors="pt", padding=True).to(x.device)
        ids, mask = words.input_ids.clone(), words.attention_mask
        ids[:, 0] = self.model.config.text_config.bos_token_id  # BLIP's decoder starts with [DEC]
        image_features = self.model.vision_model(pixel_values=self.pixels(x))[0]
        logits = self.model.text_decoder(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=image_features,
            encoder_attention_mask=torch.ones(image_features.shape[:-1], dtype=torch.long, device=x.device),
            return_dict=True,
        ).logits
        each = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
        counted = mask[:, 1:].bool() & (ids[:, 1:] != self.model.config.text_config.sep_token_id)
        counted[:, : len(self.tokenizer(self.prompt).input_ids) - 2] = False
        return (each * counted).sum(1) / counted.sum(1).clamp_min(1)

    def pixels(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != self.size:
            x = F.interpolate(x, size=self.size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return ((x - self.mean) / self.std).to(self.model.dtype)


SPECIAL = 2  # [DEC] and [ENC], which BLIP adds to BERT's words and published tokenizers leave out


def _size(size: Any) -> tuple[int, int]:
    """(height, width) of an image processor's `size`: both, `shortest_edge` or a plain number.

    The vision model has positions for a square alone, so one edge means both.
    """
    if isinstance(size, int):
        return size, size
    edges = [size.get("shortest_edge")] * 2 if size.get("shortest_edge") else [size.get("height"), size.get("width")]
    if not all(isinstance(edge, int) and edge > 0 for edge in edges):
        raise ValueError(f"captioner: its image processor's size={size} is no size: write height and width")
    return edges[0], edges[1]


def examine(weights: str) -> None:
    """Raise ValueError for what `load` would refuse, by headers, configs and the tokenizer alone."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipProcessor

    folder = weight_files.locate(weights)
    examined.examine(BlipForConditionalGeneration, folder, weights)
    words = BlipConfig.from_pretrained(folder).text_config.vocab_size
    require_vocabulary(BlipProcessor.from_pretrained(folder).tokenizer, words, weights, lacking=SPECIAL)


def load(
    weights: str,
    prompt: str = "",
    beams: int = 1,
    min_length: int = 1,
    max_length: int = 20,
    keep_prompt: bool = True,
    instead_of: str = "",
) -> Blip:
    """BLIP from a folder written by `save_pretrained`: model, tokenizer and image processor."""
    from transformers import BlipForConditionalGeneration, BlipProcessor

    folder = weight_files.locate(weights)
    model = pretrained(BlipForConditionalGeneration, folder, weights)
    require_finite(model, weights)
    processor = BlipProcessor.from_pretrained(folder)
    require_vocabulary(processor.tokenizer, model.config.text_config.vocab_size, weights, lacking=SPECIAL)
    return Blip(model, processor, prompt, beams, min_length, max_length, keep_prompt, instead_of)
