"""Random weights in Stable Diffusion v1's and BLIP's layout at any size: costs can be measured before any download."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Size:
    """Widths of a latent diffusion model and its captioner; the defaults are those of Stable Diffusion v1 and BLIP base.

    Attributes:
        unet: channels per resolution; heads: attention heads; cross: width of the text model.
        vae: channels per resolution; three of them halve the image, so a latent pixel covers 8 x 8.
        text_layers, words: of the text model; `words` is its vocabulary.
        caption_width, caption_layers, caption_words, patch, side: of BLIP; `side` is the image size that it sees.
    """

    unet: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    heads: int = 8
    cross: int = 768
    vae: tuple[int, int, int, int] = (128, 256, 512, 512)
    text_layers: int = 12
    words: int = 49408
    caption_width: int = 768
    caption_layers: int = 12
    caption_words: int = 30524
    patch: int = 16
    side: int = 384


SD_V1 = Size()


def narrow(width: int) -> Size:
    """The same architecture, `width` channels at the first resolution; 96 gives a U-Net of about 40 million weights."""
    vae = max(8, width // 24 * 8)
    return Size(
        unet=(width, 2 * width, 2 * width, 2 * width),
        heads=4,
        cross=64,
        vae=(vae, vae, 2 * vae, 2 * vae),
        text_layers=2,
        words=1000,
        caption_width=64,
        caption_layers=2,
        caption_words=1000,
        patch=8,
        side=32,
    )


def write(folder: Path, size: Size, seed: int = 0) -> dict[str, int]:
    """Write `latent` and `blip` below the folder, as `save_pretrained` does; returns the number of weights by component."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        counts = _latent(folder / "latent", size) | _blip(folder / "blip", size)
    return counts


def unet(size: Size) -> Any:
    """The noise network; 859,520,964 weights at Stable Diffusion v1's size."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=size.unet,
        layers_per_block=2,
        cross_attention_dim=size.cross,
        attention_head_dim=size.heads,  # the number of heads, in Stable Diffusion v1's own configuration
        norm_num_groups=math.gcd(32, size.unet[0]),
    )


def vae(size: Size) -> Any:
    """The autoencoder."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=size.vae,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=math.gcd(32, size.vae[0]),
        sample_size=512,
        scaling_factor=0.18215,
    )


def text_model(size: Size) -> Any:
    """The text encoder, 77 tokens long."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size.words,
            hidden_size=size.cross,
            intermediate_size=4 * size.cross,
            num_hidden_layers=size.text_layers,
            num_attention_heads=max(size.cross // 64, 1),
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            projection_dim=size.cross,
            eos_token_id=1,
            bos_token_id=0,
            pad_token_id=1,
        )
    )


def _latent(folder: Path, size: Size) -> dict[str, int]:
    from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
    from transformers import CLIPTokenizer

    parts = {"unet": unet(size), "vae": vae(size), "text_encoder": text_model(size)}
    # One token per letter: the prompt is padded to 77 tokens whatever it says, so the cost is the same.
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    names += [f"unused{i}</w>" for i in range(size.words - len(names))]  # as many as the text model knows
    tokenizer = CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=77)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    )
    StableDiffusionImg2ImgPipeline(
        **parts,
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return {name: _weights(model) for name, model in parts.items()}


SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")  # BLIP's, first in its vocabulary


def blip(size: Size) -> Any:
    """The captioner."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    shared = {
        "hidden_size": size.caption_width,
        "num_hidden_layers": size.caption_layers,
        "num_attention_heads": max(size.caption_width // 64, 1),
        "intermediate_size": 4 * size.caption_width,
    }
    config = BlipConfig(
        vision_config={
            **shared,
            "image_size": size.side,
            "patch_size": size.patch,
            "initializer_range": 0.02,
            "projection_dim": size.caption_width,
        },
        text_config={
            **shared,
            "vocab_size": size.caption_words,
            "encoder_hidden_size": size.caption_width,
            "bos_token_id": SPECIAL.index("[DEC]"),
            "eos_token_id": SPECIAL.index("[SEP]"),
            "sep_token_id": SPECIAL.index("[SEP]"),
            "pad_token_id": SPECIAL.index("[PAD]"),
        },
    )
    return BlipForConditionalGeneration(config)


def _blip(folder: Path, size: Size) -> dict[str, int]:
    from transformers import BertTokenizer, BlipImageProcessor, BlipProcessor

    names = [*SPECIAL, *(f"word{i}" for i in range(size.caption_words - len(SPECIAL)))]
    tokenizer = BertTokenizer(vocab={name: i for i, name in enumerate(names)}, model_max_length=32)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    model = blip(size)
    # A special token is dropped from the text: without this, random weights may end every caption at once.
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[: len(SPECIAL)] = -30
    model.save_pretrained(folder)
    side = {"height": size.side, "width": size.side}
    images = BlipImageProcessor(size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3)
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return {"blip": _weights(model)}


def _weights(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())
