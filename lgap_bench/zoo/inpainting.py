"""The latent diffusion models of scenes: the plain one, and the inpainting one of nine channels that starts from it.

They start from the digits' own, which are convolutional: from nothing they take three times as many steps.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from lgap_bench.dataset.base import Objects
from lgap_bench.dataset.digits import digits
from lgap_bench.dataset.scenes import COUNTS, SIDE, scenes
from lgap_bench.runtime import weights
from lgap_bench.zoo.captioner import SCENE_WORDS
from lgap_bench.zoo.fit import Batch, fit
from lgap_bench.zoo.fresh import fresh, pool
from lgap_bench.zoo.halves import save
from lgap_bench.zoo.latent import build, coding_loss, encode, scale, scheduler, token_ids, tokenizer, write_index

LATENT = SIDE // 4
UNTOLD = 0.15  # share of captions that are left out, for guidance
SOME_EMPTY = (*COUNTS, *COUNTS, 0)  # "a photo of nothing" has to be learned as well


def train_vae(out: Path, work: Path) -> None:
    """The digits' autoencoder on fresh scenes: as it is, its group norms meet more ink than they know (22 dB)."""
    torch.manual_seed(12)
    model, glyphs = _digits(AutoencoderKL, "vae"), pool()

    def loss(batch: Batch) -> Tensor:
        return coding_loss(model, fresh(glyphs, batch.generator, 32).images, batch.generator)

    fit("scenes_vae", [model], loss, digits("train"), work, steps=800, lr=1e-3, ema=0.99)
    scale(model, scenes("train").images[:1500])
    save(model, out)


def train_unet(out: Path, work: Path) -> None:
    """Noise prediction on latents of fresh scenes, captioned."""
    torch.manual_seed(8)
    vae: Any = AutoencoderKL.from_pretrained(out / "vae").eval().requires_grad_(False)
    words, text, _ = build(SCENE_WORDS, LATENT)
    unet = _digits(UNet2DConditionModel, "unet")
    unet.register_to_config(sample_size=LATENT)
    schedule, glyphs = scheduler(), pool()

    def loss(batch: Batch) -> Tensor:
        made = fresh(glyphs, batch.generator, 32, SOME_EMPTY)
        z = encode(vae, 2 * made.images - 1, batch.generator)
        noise = torch.randn(z.shape, generator=batch.generator)
        t = torch.randint(1000, (len(z),), generator=batch.generator)
        hidden = text(token_ids(words, _untold(made.captions, batch.generator)))[0]
        return F.mse_loss(unet(schedule.add_noise(z, noise, t), t, encoder_hidden_states=hidden).sample, noise)

    fit("scenes_unet", [unet, text], loss, digits("train"), work, steps=1500, lr=1.5e-3, ema=0.998)
    save(unet, out / "unet")
    save(text, out / "text_encoder")
    words.save_pretrained(out / "tokenizer")
    schedule.save_pretrained(out / "scheduler")
    write_index(out, "StableDiffusionImg2ImgPipeline")


def train_inpaint(out: Path, work: Path, start: Path) -> None:
    """The plain network with five more channels, of weight zero at first: the mask, and the image without the hole."""
    torch.manual_seed(9)
    vae: Any = AutoencoderKL.from_pretrained(start / "vae").eval().requires_grad_(False)
    plain: Any = UNet2DConditionModel.from_pretrained(start / "unet")
    text: Any = CLIPTextModel.from_pretrained(start / "text_encoder").eval().requires_grad_(False)
    words, schedule, glyphs = tokenizer(SCENE_WORDS), scheduler(), pool()
    unet = _widened(plain)

    def loss(batch: Batch) -> Tensor:
        made = fresh(glyphs, batch.generator, 32, SOME_EMPTY)
        pixels = 2 * made.images - 1
        mask = torch.stack([hole(objects, batch.generator) for objects in made.objects])[:, None]
        z = encode(vae, pixels, batch.generator)
        seen = encode(vae, pixels * (mask < 0.5), batch.generator)  # the hole is 0, grey, as in the pipeline
        noise = torch.randn(z.shape, generator=batch.generator)
        t = torch.randint(1000, (len(z),), generator=batch.generator)
        with torch.no_grad():
            hidden = text(token_ids(words, _untold(made.captions, batch.generator)))[0]
        given = torch.cat([schedule.add_noise(z, noise, t), F.interpolate(mask, z.shape[-2:]), seen], dim=1)
        return F.mse_loss(unet(given, t, encoder_hidden_states=hidden).sample, noise)

    fit("scenes_inpaint", [unet], loss, digits("train"), work, steps=1000, lr=1e-3, ema=0.995)
    for part in ("text_encoder", "vae", "tokenizer", "scheduler"):
        shutil.copytree(start / part, out / part, dirs_exist_ok=True)
    save(unet, out / "unet")
    write_index(out, "StableDiffusionInpaintPipeline")


def hole(objects: Objects, generator: torch.Generator) -> Tensor:
    """What is to be painted, (48, 48) float of 0 and 1: a quarter everything; objects; any boxes; all but the objects."""
    kind = torch.rand((), generator=generator).item()
    boxes = (objects.boxes * SIDE).round().long()
    if kind < 0.25 or not len(boxes):
        return torch.ones(SIDE, SIDE)
    if kind < 0.45:
        corner = torch.randint(SIDE - 8, (3, 2), generator=generator)
        boxes = torch.cat([corner, corner + torch.randint(8, 28, (3, 2), generator=generator)], dim=1)
        return _union(boxes[: int(torch.randint(1, 4, (1,), generator=generator))], 0)
    margin = int(torch.randint(5, (1,), generator=generator))
    if kind < 0.8:
        kept = torch.rand(len(boxes), generator=generator) < 0.8
        return _union(boxes[kept] if kept.any() else boxes, margin)
    return 1 - _union(boxes, margin)


def _union(boxes: Tensor, margin: int) -> Tensor:
    """1 inside of any box, each wider by a margin on all sides."""
    mask = torch.zeros(SIDE, SIDE)
    for left, top, right, bottom in boxes.tolist():
        mask[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin] = 1
    return mask


def _untold(captions: list[str], generator: torch.Generator) -> list[str]:
    draw = torch.rand(len(captions), generator=generator).tolist()
    return ["" if u < UNTOLD else caption for u, caption in zip(draw, captions, strict=True)]


def _digits(kind: Any, part: str) -> Any:
    """A part of the digits' latent diffusion model, to go on from."""
    return kind.from_pretrained(weights.ZOO / "digits" / "latent" / part)


def _widened(plain: Any) -> UNet2DConditionModel:
    """The same network with nine channels in, the five new ones of weight zero."""
    _, _, wide = build(SCENE_WORDS, LATENT, channels=9)
    state = plain.state_dict()
    weight = torch.zeros_like(wide.conv_in.weight)
    weight[:, :4] = state["conv_in.weight"]
    wide.load_state_dict({**state, "conv_in.weight": weight})
    return wide
