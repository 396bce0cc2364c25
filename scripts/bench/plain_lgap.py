"""LGAP under BPDA as a researcher would script it from public libraries alone; nothing of lgap_bench is imported here.

Caption with transformers' BLIP, purify with diffusers' img2img pipeline, attack with torchattacks' PGD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor, nn


@dataclass(frozen=True)
class Setting:
    """What LGAP's script is told; the values come from the cell that it is compared with."""

    prompt: str
    beams: int
    min_length: int
    max_length: int
    steps: int
    strength: float
    spacing: str
    guidance_scale: float
    negative_prompt: str
    resize_in: int | None


class Purify:
    """Images in [0, 1] -> purified images, without gradient."""

    def __init__(self, latent: str, blip: str, setting: Setting, device: str) -> None:
        from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self.pipe: Any = StableDiffusionImg2ImgPipeline.from_pretrained(latent, local_files_only=True).to(device)
        self.pipe.scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config, timestep_spacing=setting.spacing)
        self.pipe.set_progress_bar_config(disable=True)
        self.processor: Any = BlipProcessor.from_pretrained(blip)
        self.captioner: Any = BlipForConditionalGeneration.from_pretrained(blip).eval().to(device)
        self.setting = setting

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        captions = self.captions(x)
        s = self.setting
        side = s.resize_in or x.shape[-1]
        images = x if side == x.shape[-1] else F.interpolate(x, (side, side), mode="bilinear", antialias=True)
        out = self.pipe(
            prompt=captions,
            negative_prompt=[s.negative_prompt] * len(captions),
            image=images,
            strength=s.strength,
            num_inference_steps=s.steps,
            guidance_scale=s.guidance_scale,
            output_type="pt",
        ).images
        return out if side == x.shape[-1] else F.interpolate(out, x.shape[-2:], mode="bilinear", antialias=True)

    def captions(self, x: Tensor) -> list[str]:
        """One sentence per image, prompt included."""
        s = self.setting
        inputs = self.processor(
            images=list(x.cpu()), text=[s.prompt] * len(x), return_tensors="pt", do_rescale=False
        ).to(x.device)
        tokens = self.captioner.generate(
            **inputs, num_beams=s.beams, min_new_tokens=s.min_length, max_new_tokens=s.max_length, do_sample=False
        )
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]


class Identity(torch.autograd.Function):
    """BPDA: the purifier forward, the identity backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, purify: Purify) -> Tensor:
        return purify(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class Defended(nn.Module):
    """classifier(purify(x)), with BPDA's gradient."""

    def __init__(self, purify: Purify, classifier: nn.Module) -> None:
        super().__init__()
        self.purify, self.classifier = purify, classifier
        self.eval()  # all of it: torchattacks gives a module that says it is training back in training mode

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(Identity.apply(x, self.purify))


def attack(defended: Defended, x: Tensor, y: Tensor, eps: float, step: float, steps: int) -> Tensor:
    """PGD from the clean images: the last iterates."""
    return torchattacks.PGD(defended, eps=eps, alpha=step, steps=steps, random_start=False)(x, y)


@torch.no_grad()
def robust(defended: Defended, x: Tensor, y: Tensor, draws: int) -> float:
    """Accuracy in percent, the mean over fresh draws."""
    return 100 * sum(float((defended(x).argmax(1) == y).double().mean()) for _ in range(draws)) / draws
