"""The miniature's latent diffusion model, in Stable Diffusion's folder layout: AutoencoderKL, CLIP text, U-Net."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lgap_bench.dataset.digits import describe, digits
from lgap_bench.zoo.captioner import WORDS
from lgap_bench.zoo.fit import Batch, fit, shift

LENGTH = 16  # tokens: the longest training caption has nine words


def train_vae(out: Path, work: Path) -> None:
    """Squared error plus a small KL term; then the scaling factor that gives the latents unit variance.

    Three quarters of the images carry grain that has to come out again: an autoencoder of clean digits alone removes
    perturbations by itself (98.8 % against a blind attacker at 24/255, without any diffusion), which no autoencoder of
    natural images does.
    """
    torch.manual_seed(3)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
    )

    def loss(batch: Batch) -> Tensor:
        return coding_loss(model, shift(batch.images, batch.generator), batch.generator)

    data = digits("train")
    fit("vae", [model], loss, data, work, steps=1500, lr=2e-3, ema=0.995)
    scale(model, data.images[:])
    model.save_pretrained(out)


def coding_loss(model: Any, images: Tensor, generator: torch.Generator) -> Tensor:
    """Squared error of images (B, 3, H, W) in [0, 1] that are given grain, and 0.05 of the KL term."""
    x = 2 * _grain(images, generator) - 1
    posterior = model.encode(x).latent_dist
    z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
    error = F.mse_loss(model.decode(z).sample, x, reduction="none").sum(dim=(1, 2, 3)).mean()
    return (error + 0.05 * posterior.kl().mean()) / 100


@torch.no_grad()
def scale(model: Any, images: Tensor) -> None:
    """Write the factor into the config that gives the latents of these images unit variance."""
    latents = torch.cat([model.encode(2 * x - 1).latent_dist.mean for x in images.split(250)])
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))


def _grain(x: Tensor, generator: torch.Generator) -> Tensor:
    """Coarse coloured noise, 8 or 16 grains a side, amplitude up to 0.2; the first quarter of the batch stays clean."""
    side = (8, 16)[int(torch.randint(2, (1,), generator=generator))]
    coarse = torch.randn(len(x), 3, side, side, generator=generator)
    noise = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
    amplitude = 0.2 * torch.rand(len(x), 1, 1, 1, generator=generator)
    amplitude[: len(x) // 4] = 0
    return (x + amplitude * noise).clamp(0, 1)


def tokenizer(words: Sequence[str] = WORDS) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges build each known word into one token; unknown words fall apart into letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    letters += sorted(set("".join(words)) - set(letters))  # a comma, where it is one of the words
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        for pair in merges:  # what earlier words' merges, which come first, make of this word
            pieces = _merge(pieces, pair)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = _merge(pieces, merges[-1])
            tokens.append(pieces[0])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    made = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)
    for word in words:
        count = len(made(word).input_ids) - 2
        assert count == 1, f"{word} became {count} tokens"
    return made


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """One byte-pair merge, wherever the pair stands in the word."""
    out: list[str] = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def build(
    known: Sequence[str] = WORDS, side: int = 8, channels: int = 4
) -> tuple[CLIPTokenizer, CLIPTextModel, UNet2DConditionModel]:
    """Text width 64; U-Net (32, 64) on latents of that side with cross-attention at the lowest resolution only: 2.7x faster.

    `channels` go in: 4 of the noised latent, for inpainting also the mask and 4 of the masked image.
    """
    words = tokenizer(known)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words.get_vocab()),
            hidden_size=64,
            intermediate_size=128,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    return words, text, unet


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's own schedule and flags; diffusers' defaults clip samples."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    )


def train_unet(out: Path, work: Path) -> None:
    """Noise prediction on the frozen autoencoder's latents; 30 % of captions without the stroke words, 15 % empty."""
    torch.manual_seed(4)
    vae: Any = AutoencoderKL.from_pretrained(out / "vae").eval().requires_grad_(False)
    words, text, unet = build()
    schedule = scheduler()

    def loss(batch: Batch) -> Tensor:
        x = shift(batch.images, batch.generator)
        draw = torch.rand(len(x), generator=batch.generator).tolist()
        captions = describe(x, batch.labels)
        captions = [
            "" if u < 0.15 else c.split(" in ")[0] if u < 0.45 else c for u, c in zip(draw, captions, strict=True)
        ]
        z = encode(vae, 2 * x - 1, batch.generator)
        noise = torch.randn(z.shape, generator=batch.generator)
        t = torch.randint(1000, (len(z),), generator=batch.generator)
        hidden = text(token_ids(words, captions))[0]
        predicted = unet(schedule.add_noise(z, noise, t), t, encoder_hidden_states=hidden).sample
        return F.mse_loss(predicted, noise)

    fit("unet", [unet, text], loss, digits("train"), work, steps=4200, lr=2e-3, ema=0.998)
    unet.save_pretrained(out / "unet")
    text.save_pretrained(out / "text_encoder")
    words.save_pretrained(out / "tokenizer")
    schedule.save_pretrained(out / "scheduler")
    write_index(out, "StableDiffusionImg2ImgPipeline")


@torch.no_grad()
def encode(vae: Any, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Images in [-1, 1] -> scaled samples of their latents' posterior."""
    posterior = vae.encode(pixels).latent_dist
    z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
    return z * vae.config.scaling_factor


def token_ids(words: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Captions as the text encoder reads them, (B, LENGTH)."""
    return words(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


def write_index(out: Path, pipeline: str) -> None:
    """The file that lets that pipeline of diffusers read the folder with `from_pretrained`."""
    index = {
        "_class_name": pipeline,
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
