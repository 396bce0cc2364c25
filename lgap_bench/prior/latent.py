"""A text-conditioned latent diffusion model in Stable Diffusion's folder layout (Rombach et al. 2022).

Called component by component: diffusers' pipelines run under `no_grad`, which no adaptive attack survives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lgap_bench.noise import Noise
from lgap_bench.prior import single_file
from lgap_bench.prior.resize import resized
from lgap_bench.runtime import examined
from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.pretrained import caption_length, pretrained, require_finite, require_vocabulary

Prediction = Literal["epsilon", "v_prediction"]  # what a network returns


@dataclass(frozen=True)
class TextCondition:
    """Text embeddings for classifier-free guidance (Ho and Salimans 2022): positive, negative (None: unused), scale w.

    `known` (B, k, h, w): further channels that an inpainting network is given beside z_t, or None.
    """

    positive: Tensor
    negative: Tensor | None
    scale: float
    known: Tensor | None = None

    def beside(self, known: Tensor) -> TextCondition:
        """The same text, with the channels of a known region."""
        return replace(self, known=known)


class LatentPrior(nn.Module):
    """Encoder E, decoder D, text encoder tau and noise network of a latent diffusion model; weights frozen.

    `noise` returns the noise in z_t whatever the network predicts (`epsilon` or `v_prediction`). All maps are
    differentiable. `alphas[t]` is the cumulative product of 1 - beta, t an integer step in [0, 999].
    """

    vae: Any  # diffusers' and transformers' classes, which carry their config; nn.Module would hide it
    unet: Any
    text_encoder: Any

    def __init__(
        self,
        vae: nn.Module,
        unet: nn.Module,
        text_encoder: nn.Module,
        tokenizer: Any,
        scheduler: Any,
        memory: float | None = None,
    ) -> None:
        super().__init__()
        self.vae, self.unet, self.text_encoder = vae, unet, text_encoder
        self.tokenizer = tokenizer
        self.memory = memory
        self.prediction: str = scheduler.config.prediction_type
        if self.prediction not in ("epsilon", "v_prediction"):
            raise ValueError(f"prior predicts {self.prediction}: only epsilon and v_prediction are known")
        # float64 coefficients: the float32 rounding of a square root would show in the float64 gradient tests.
        self.alphas_f64 = scheduler.alphas_cumprod.double()
        self.steps_offset: int = scheduler.config.get("steps_offset", 0)
        self.final_alpha: float = 1.0 if scheduler.config.get("set_alpha_to_one", True) else self.alphas_f64[0].item()
        self.eval().requires_grad_(False)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What is called again and again, for torch.compile."""
        return self.unet, self.vae.encoder, self.vae.decoder

    @property
    def train_steps(self) -> int:
        """T, the number of steps the model was trained with."""
        return len(self.alphas_f64)

    def alpha(self, t: int) -> float:
        """Cumulative signal fraction a_t; before the first step (t < 0) the scheduler's final value."""
        return self.alphas_f64[t].item() if t >= 0 else self.final_alpha

    def encode(self, x: Tensor, noise: Noise, tag: str = "vae") -> Tensor:
        """z_0 = E(x): images in [0, 1] (B, 3, H, W) -> a scaled posterior sample (B, 4, H/f, W/f); `tag` names its noise."""
        posterior = self.vae.encode((2 * x - 1).to(self.vae.dtype)).latent_dist
        sample = posterior.mean + posterior.std * noise.normal(posterior.mean, tag)
        return sample * self.vae.config.scaling_factor

    def image(self, z: Tensor, size: tuple[int, ...] | None = None) -> Tensor:
        """A latent as a classifier sees it: decoded, at a (height, width) or as it is; not clipped."""
        decoded = self.vae.decode(z / self.vae.config.scaling_factor).sample / 2 + 0.5
        if size is None or tuple(decoded.shape[-2:]) == size:
            return decoded
        return resized(decoded.to(torch.promote_types(decoded.dtype, torch.float32)), size)  # see LGAP.forward

    def decode(self, z: Tensor) -> Tensor:
        """x = D(z_0), clipped to [0, 1] as the pipeline does."""
        return self.image(z).clamp(0, 1)

    def embed(self, captions: Sequence[str]) -> Tensor:
        """tau(captions), (B, L, D); each distinct caption is encoded once. Too long captions are cut, as in the pipeline."""
        # Sorted, so that the rounding of a batch does not depend on the order of its images.
        distinct = sorted(set(captions))
        tokens = self.tokenizer(
            distinct,
            padding="max_length",
            max_length=caption_length(self.tokenizer, self.text_encoder.config),
            truncation=True,
            return_tensors="pt",
        )
        with torch.no_grad():  # a caption has no gradient
            hidden = self.text_encoder(tokens.input_ids.to(self.unet.device))[0]
        return hidden[[distinct.index(caption) for caption in captions]]

    def cut(self, captions: Sequence[str]) -> list[bool]:
        """Which captions are longer than tau takes, so that `embed` reads only their beginning."""
        most = caption_length(self.tokenizer, self.text_encoder.config)
        return [len(tokens) > most for tokens in self.tokenizer(list(captions), verbose=False).input_ids]

    def condition(self, captions: Sequence[str], negative: str, scale: float) -> TextCondition:
        """The captions (and, where the scale w is not 1, the negative prompt) as the network reads them."""
        empty = None if scale == 1 else self.embed([negative] * len(captions))
        return TextCondition(self.embed(captions), empty, scale)

    def predict(self, x_t: Tensor, label: float, condition: TextCondition) -> tuple[Tensor, None]:
        """`noise`, and no variance output."""
        return self.noise(x_t, label, condition), None

    def noise(self, z: Tensor, t: float, condition: TextCondition) -> Tensor:
        """e = e_u + w (e_c - e_u), the network's estimate of the noise in z_t; one call on 2B rows if w is not 1."""
        known = condition.known
        if condition.negative is None:
            return self._predict(z, t, condition.positive, known)
        twice = None if known is None else torch.cat([known, known])
        both = self._predict(torch.cat([z, z]), t, torch.cat([condition.negative, condition.positive]), twice)
        e_u, e_c = both.chunk(2)
        return e_u + condition.scale * (e_c - e_u)

    def _predict(self, z: Tensor, t: float, hidden: Tensor, known: Tensor | None) -> Tensor:
        shown = z if known is None else torch.cat([z, known], dim=1)
        output = self.unet(shown, t, encoder_hidden_states=hidden.to(z.dtype)).sample
        if self.prediction == "epsilon":
            return output
        a = self.alpha(int(t))  # v = sqrt(a) e - sqrt(1 - a) x0, so e = sqrt(a) v + sqrt(1 - a) x_t
        return a**0.5 * output + (1 - a) ** 0.5 * z


@dataclass(frozen=True)
class Layout:
    """What a folder's parts are called, and the classes of its text model and tokenizer."""

    parts: dict[str, str]
    vae: str
    text: str
    model: Any
    words: Any


def layout(folder: Path) -> Layout:
    """Stable Diffusion's, or that of latent diffusion's own text-to-image model (`CompVis/ldm-text2im-large-256`)."""
    from transformers import BertTokenizer, CLIPTextModel, CLIPTokenizer

    if not (folder / "bert").is_dir():
        return Layout(weight_files.LATENT_PARTS, "vae", "text_encoder", CLIPTextModel, CLIPTokenizer)
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel

    return Layout(weight_files.LDM_PARTS, "vqvae", "bert", LDMBertModel, BertTokenizer)


def examine(weights: str, prediction: str | None = None) -> None:
    """Raise ValueError for what `load` would refuse, by headers, configs and the tokenizer alone."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    if (file := weight_files.place(weights)).is_file():
        return single_file.check(file, prediction)
    found = layout(weight_files.locate(weights))
    folder = weight_files.locate(weights, found.parts)
    for kind, part in ((AutoencoderKL, found.vae), (UNet2DConditionModel, "unet"), (found.model, found.text)):
        examined.examine(kind, folder / part, weights)
    words = found.model.config_class.from_pretrained(folder / found.text).vocab_size
    require_vocabulary(found.words.from_pretrained(folder / "tokenizer"), words, weights)


def load(weights: str, memory: float | None = None, prediction: Prediction | None = None) -> LatentPrior:
    """The model in a folder with `vae`, `unet`, `text_encoder`, `tokenizer` and `scheduler`, as Stable Diffusion's, or in one file.

    `prediction`: of a single file of Stable Diffusion 2 whether it predicts `epsilon` or `v_prediction`, null for what its
    name says; a folder says it itself.
    `memory`: GiB of activations that a purifier may hold for the exact gradient, null for all; see `purifier.memory`.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    made = single_file.folder_of(weights, prediction)
    found = layout(weight_files.locate(made))
    folder = weight_files.locate(made, found.parts)
    text_encoder = pretrained(found.model, folder / found.text, weights)
    tokenizer = found.words.from_pretrained(folder / "tokenizer")
    require_vocabulary(tokenizer, text_encoder.config.vocab_size, weights)
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    if prediction not in (None, scheduler.config.prediction_type):
        raise ValueError(
            f"prior.prediction={prediction}, and the scheduler of weights={weights} says {scheduler.config.prediction_type}: leave it null"
        )
    prior = LatentPrior(
        pretrained(AutoencoderKL, folder / found.vae, weights),
        pretrained(UNet2DConditionModel, folder / "unet", weights),
        text_encoder,
        tokenizer,
        scheduler,
        memory,
    )
    require_finite(prior, weights)
    return prior
