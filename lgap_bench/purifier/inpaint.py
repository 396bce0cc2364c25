"""Conditioned denoising (Zhou and Loza): inpaint the region of detected objects under their names as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgap_bench.detector.base import Detector, Found, decode, encode, words_of
from lgap_bench.detector.words import sentence
from lgap_bench.noise import Noise
from lgap_bench.prior.latent import LatentPrior, TextCondition
from lgap_bench.prior.resize import resized
from lgap_bench.prior.timesteps import Spacing
from lgap_bench.purifier.diffusion import add_noise, states
from lgap_bench.purifier.lgap import LGAP
from lgap_bench.purifier.memory import recomputed
from lgap_bench.purifier.sampler import DDIM
from lgap_bench.purifier.wavelet import shrunk
from lgap_bench.runtime.choices import require_choice

Region = Literal["inside", "outside", "all"]
Text = Literal["labels", "caption", "none"]
CHANNELS = 9  # of an inpainting network: the noisy latent's 4, the mask, the masked image's 4


class Inpaint(LGAP):
    """Detect, mask, regenerate under the mask with a text-conditioned inpainting model, decode.

    Equal to diffusers' StableDiffusionInpaintPipeline with the same weights and noise, plus the detection before it and
    the choice to paste the known region back after it.

    Symbols: m the mask, 1 where the image is regenerated; E, D encoder and decoder; k = (m, E((1 - m) x)) what the network
    is told of the known region beside z_t; C the text's embedding.

    What an attacker can differentiate: the mask and the text are observed anew on every iterate and constants for the
    gradient. At strength 1 the latent begins as pure noise, so that nothing of the image inside m reaches the result but
    through the mask and the text, and the exact gradient there is zero.

    Args:
        prior: a latent diffusion model whose network takes 9 channels.
        detector: what is in the image, and where.
        captioner: where the text comes from instead of the detected labels, or null.
        region: `inside`: regenerate what was detected (the paper's section 3.2); `outside`: regenerate everything else
            (its section 1); `all`: no masking, the paper's baseline.
        paste: put the known region's own pixels back over the result.
        text: `labels`, `caption` (needs a captioner) or `none`.
        shrink: threshold of a wavelet denoiser over the result, in [0, 1] pixel units (CIIDefence); 0 for none.
        steps, strength, start, spacing, guidance_scale, negative_prompt, resize_in, resize_out: as of `LGAP`.

    Where nothing is found the mask is empty: `inside` regenerates nothing and returns what the autoencoder makes of the
    image, or with `paste` the image as it was; `outside` regenerates all of it under the sentence about nothing.
    """

    detector: Detector

    def __init__(
        self,
        prior: LatentPrior,
        detector: Detector,
        captioner: nn.Module | None,
        steps: int,
        strength: float | None = 1.0,
        start: int | None = None,
        spacing: Spacing = "leading",
        guidance_scale: float = 7.5,
        negative_prompt: str = "",
        resize_in: int | None = None,
        resize_out: int | None = None,
        region: Region = "inside",
        paste: bool = False,
        text: Text = "labels",
        shrink: float = 0.0,
    ) -> None:
        super().__init__(
            prior, captioner, steps, strength, start, spacing, guidance_scale, negative_prompt, resize_in, resize_out
        )
        self.region, self.paste, self.text = region, paste, text
        require_choice("purifier.region", region, Region)
        require_choice("purifier.text", text, Text)
        channels = prior.unet.config.in_channels
        if channels != CHANNELS:
            raise ValueError(
                f"purifier=inpaint with a network of {channels} channels: it needs an inpainting model of {CHANNELS}, use prior=<dataset>/inpaint"
            )
        if text == "caption" and captioner is None:
            raise ValueError(
                "purifier.text=caption without a captioner: choose captioner=<dataset>/blip, or text=labels"
            )
        if not 0 <= shrink <= 1:
            raise ValueError(f"purifier.shrink={shrink} is not in [0, 1]: it is a difference of pixels, try 0.05")
        self.detector, self.shrink = detector, shrink
        self.from_noise = strength == 1.0

    def observe(self, x: Tensor, noise: Noise) -> list[str]:
        """Per image the sentence that conditions it and where it was detected, as one text: see `detector.base.encode`."""
        x = x.detach()
        found = self.detector(x, noise)
        said = super().observe(x, noise) if self.text == "caption" else [self._sentence(each) for each in found]
        said = [""] * len(x) if self.text == "none" else said
        return [encode(text, each.mask) for text, each in zip(said, found, strict=True)]

    def _sentence(self, found: Found) -> str:
        """The detected classes in the detector's own order, so that the text hangs on what was found and not on scores."""
        return sentence(sorted(found.words, key=self.detector.names.index))

    def words(self, observed: Sequence[str]) -> list[str]:
        """The sentences alone."""
        return [words_of(each) for each in observed]

    def masks(self, observed: list[str] | None, x: Tensor) -> Tensor | None:
        """m (B, 1, H, W)."""
        return None if observed is None else self._read(observed, x)[1]

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x (B, 3, H, W) in [0, 1] -> purified images in [0, 1]; differentiable in x, the mask held fixed."""
        captions, m = self._read(self.observe(x, noise) if observed is None else observed, x)
        z_t, C, k = self._conditioned(x, captions, m, noise)
        purified = self.denoised(z_t, C, self._size(x), noise, captured=[k], dtype=x.dtype)
        return self._finished(purified, x, m)

    def path(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Iterator[Tensor]:
        """z_t* and every state after it, decoded and finished as the last one is."""
        captions, m = self._read(self.observe(x, noise) if observed is None else observed, x)
        z_t, C, _ = self._conditioned(x, captions, m, noise)
        for z in (z_t, *states(self.prior, z_t, self.steps, C, DDIM(), noise)):
            yield self._finished(self._decoded(z, self._size(x), x.dtype), x, m)

    def _conditioned(
        self, x: Tensor, captions: list[str], m: Tensor, noise: Noise
    ) -> tuple[Tensor, TextCondition, Tensor]:
        """z_t*, C beside k, and k."""
        C = self.prior.condition(captions, self.negative_prompt, self.guidance_scale)
        shown = resized(x, self.resize_in)
        k = self._given(shown, F.interpolate(m, shown.shape[-2:]), noise)
        return self._begin(shown, k, noise), C.beside(k), k

    def _finished(self, purified: Tensor, x: Tensor, m: Tensor) -> Tensor:
        """The decoded image with the known region pasted back and shrunk, where that is asked for."""
        if self.paste:
            size = self._size(x)
            m, known = F.interpolate(m, size), resized(x, size)
            purified = m * purified + (1 - m) * known.clamp(0, 1)
        return shrunk(purified, self.shrink)

    def _read(self, observed: list[str], x: Tensor) -> tuple[list[str], Tensor]:
        """The sentences, and m (B, 1, H, W): 1 where the image is regenerated."""
        pairs = [decode(each) for each in observed]
        wrong = next((mask for _, mask in pairs if mask.shape != x.shape[-2:]), None)
        if wrong is not None:
            raise ValueError(
                f"purifier=inpaint: a mask is {tuple(wrong.shape)} for images of {tuple(x.shape[-2:])}: detect on images of this size"
            )
        found = torch.stack([mask for _, mask in pairs])[:, None].to(x)
        m = {"inside": found, "outside": 1 - found, "all": torch.ones_like(found)}[self.region]
        return [text for text, _ in pairs], m

    def _given(self, x: Tensor, m: Tensor, noise: Noise) -> Tensor:
        """k (B, 5, h, w): the mask at the latent's size, and the encoded image whose hole is grey, 0 in [-1, 1]."""
        holed = torch.where(m < 0.5, x, 0.5)
        encoder = partial(self.prior.encode, noise=noise, tag="masked vae")
        E = encoder(holed) if self.memory.gib is None else recomputed(encoder, holed)
        return torch.cat([F.interpolate(m, E.shape[-2:]).to(E), E], dim=1)

    def _begin(self, x: Tensor, k: Tensor, noise: Noise) -> Tensor:
        """z_t*: pure noise at strength 1, else the noisy latent of the whole image."""
        if self.from_noise:
            return noise.normal(k[:, 1:].detach(), "forward")
        z_0 = self.prior.encode(x, noise) if self.memory.gib is None else recomputed(self.prior.encode, x, noise)
        return add_noise(z_0, self.prior.alpha(self.times[0]), noise)
