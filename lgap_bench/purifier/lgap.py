"""Language-guided adversarial purification (Singh and Subramanyam 2023, section 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from lgap_bench.captioner.seen import Seen
from lgap_bench.noise import Noise
from lgap_bench.prior.latent import LatentPrior, TextCondition
from lgap_bench.prior.resize import resized
from lgap_bench.prior.timesteps import Spacing, targets, timesteps
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.diffusion import Term, add_noise, reverse, states, transition
from lgap_bench.purifier.guidance import Guidance
from lgap_bench.purifier.memory import Memory, recomputed
from lgap_bench.purifier.sampler import DDIM, visited

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # BLIP's as well


class LGAP(Purifier):
    """Caption the image, noise its latent, denoise it under the caption, decode. With empty captions: `sd_img2img`.

    With classifier confidence as guidance it is `lgap_coup` (ours): caption and confidence together in latent space.

    Symbols: E, D encoder and decoder; tau the text encoder; C = tau(caption); z_t the noisy latent; w guidance scale.

    Args:
        prior: the latent diffusion model.
        captioner: where captions come from; computed on the image as the defense sees it, without gradient. Null for
            no words: img2img without language.
        steps, strength, start, spacing: see `prior.timesteps`; the paper's t is `strength`.
        guidance_scale: w of classifier-free guidance; 1 is none.
        negative_prompt: text of the unconditional branch.
        resize_in: side length at which the diffusion model sees the image (the release: 384), null for as it is.
        resize_out: side length handed to the classifier, null for the input's own.
        as_released: reproduce the range defect of the authors' release, for comparison: see `released_range`.
        guidance: a term added to the latent score (ours), or null.
    """

    randomized = True

    def __init__(
        self,
        prior: LatentPrior,
        captioner: nn.Module | None,
        steps: int,
        strength: float | None = None,
        start: int | None = None,
        spacing: Spacing = "leading",
        guidance_scale: float = 1.0,
        negative_prompt: str = "",
        resize_in: int | None = None,
        resize_out: int | None = None,
        as_released: bool = False,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__()
        if guidance_scale < 0:
            raise ValueError(f"purifier.guidance_scale={guidance_scale} is negative: use 1 for none, 5 as the release")
        self.prior, self.captioner = prior, captioner
        self.times = timesteps(steps, strength, start, spacing, prior.train_steps, prior.steps_offset)
        self.steps = visited(prior, self.times, targets(self.times, steps, start, prior.train_steps))
        self.guidance = guidance
        self.guidance_scale, self.negative_prompt = guidance_scale, negative_prompt
        self.resize_in, self.resize_out = resize_in, resize_out
        self.as_released = self.depends_on_batch = as_released
        self.memory = Memory(prior.memory)
        self.seen: Seen | None = None

    def observe(self, x: Tensor, noise: Noise) -> list[str]:
        """Caption_BLIP = BLIP(x), section 3.1: one sentence per image."""
        if self.captioner is None:
            return [""] * len(x)
        ask = self.captioner if self.seen is None else partial(self.seen.captions, self.captioner)
        captions: list[str] = ask(x.detach(), noise)
        return captions

    @contextmanager
    def remembering(self) -> Iterator[Seen]:
        """Images that are met again inside are not described again."""
        self.seen = Seen()
        try:
            yield self.seen
        finally:
            self.seen = None

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x (B, 3, H, W) in [0, 1] -> purified images in [0, 1]; `observed` are given captions."""
        z_t, C, z_0 = self._begun(x, noise, observed)
        size = self._size(x)
        return self.denoised(z_t, C, size, noise, self.terms(z_0, size, noise), [z_0], x.dtype)

    def path(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Iterator[Tensor]:
        """z_t* and every state after it, decoded."""
        z_t, C, z_0 = self._begun(x, noise, observed)
        size = self._size(x)
        yield self._decoded(z_t, size, x.dtype)
        for z in states(self.prior, z_t, self.steps, C, DDIM(), noise, self.terms(z_0, size, noise)):
            yield self._decoded(z, size, x.dtype)

    def _begun(self, x: Tensor, noise: Noise, observed: list[str] | None) -> tuple[Tensor, TextCondition, Tensor]:
        """z_t*, C and z_0 = E(x)."""
        captions = self.observe(x, noise) if observed is None else observed
        C = self.prior.condition(captions, self.negative_prompt, self.guidance_scale)
        to_encode = resized(released_range(x) if self.as_released else x, self.resize_in)
        # Encoded first, so last in the backward pass: with a budget it is computed again, the rest may keep its graph.
        whole = self.memory.gib is None
        z_0 = self.prior.encode(to_encode, noise) if whole else recomputed(self.prior.encode, to_encode, noise)
        return add_noise(z_0, self.prior.alpha(self.times[0]), noise), C, z_0

    def _size(self, x: Tensor) -> tuple[int, ...]:
        """(height, width) of purified images."""
        return (self.resize_out, self.resize_out) if self.resize_out else tuple(x.shape[-2:])

    def _decoded(self, z: Tensor, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A latent as `denoised` hands it on."""
        return resized(self.prior.decode(z).to(dtype), size).clamp(0, 1)

    def denoised(
        self,
        z_t: Tensor,
        C: TextCondition,
        size: tuple[int, ...],
        noise: Noise,
        terms: Sequence[Term] = (),
        captured: Sequence[Tensor] = (),
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """z_t* denoised under C, decoded, at a (height, width), in [0, 1]; `captured` as in `diffusion.reverse`."""
        take = transition(self.prior, C, DDIM(), noise, terms)
        parts = [(lambda z: take(z, self.steps[0]), len(self.steps)), (self.prior.decode, 1)]
        kept, decoder = self.memory.plan(z_t, parts, self, captured)
        z_0 = reverse(self.prior, z_t, self.steps, C, DDIM(), noise, terms, kept, captured=captured)
        purified = self.prior.decode(z_0) if decoder else recomputed(self.prior.decode, z_0)
        # Antialiasing knows no bfloat16 on a CPU.
        return resized(purified.to(dtype or z_t.dtype), size).clamp(0, 1)

    def terms(self, z_0: Tensor, size: tuple[int, ...], noise: Noise) -> list[Term]:
        """The guidance of one purification of z_0, by a classifier that gets images of a (height, width)."""
        if self.guidance is None:
            return []
        return [self.guidance.term(lambda z: self.prior.image(z, size), z_0, noise)]


def released_range(x: Tensor) -> Tensor:
    """What the release's encoder is shown in place of 2x - 1, written so that `encode`, which maps x to 2x - 1, shows it.

    The release normalises the images for BLIP (mean m, std s per channel) and undoes that along the batch instead of
    the channels: image k < 3 is multiplied by s_k and shifted by m_k in all channels, the others stay normalised, and
    nothing is mapped to [-1, 1], while the decoder's output is mapped back from there. So the result depends on an
    image's place among the rows of a pass; where passes are split or draws batched, places differ from the release's.
    """
    mean, std = (torch.tensor(values, dtype=x.dtype, device=x.device) for values in (CLIP_MEAN, CLIP_STD))
    normalised = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    scale, shift = (
        torch.ones(len(x), dtype=x.dtype, device=x.device),
        torch.zeros(len(x), dtype=x.dtype, device=x.device),
    )
    count = min(len(x), 3)
    scale[:count], shift[:count] = std[:count], mean[:count]
    return (normalised * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1) + 1) / 2
