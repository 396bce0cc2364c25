"""Language-guided adversarial purification (Singh and Subramanyam 2023, section 3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lgap_bench.noise import Noise
from lgap_bench.prior.latent import LatentPrior
from lgap_bench.purifier import sampler
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.diffusion import add_noise, recomputed, reverse
from lgap_bench.purifier.times import targets, timesteps


class LGAP(Purifier):
    """Caption the image, noise its latent, denoise it under the caption, decode. With empty captions: `sd_img2img`.

    Symbols: E, D encoder and decoder; tau the text encoder; C = tau(caption); z_t the noisy latent; w guidance scale.

    Args:
        prior: the latent diffusion model.
        captioner: where captions come from; computed on the image as the defense sees it, without gradient. Null for
            no words: img2img without language.
        steps, strength, start, spacing: see `times.timesteps`; the paper's t is `strength`.
        guidance_scale: w of classifier-free guidance; 1 is none.
        negative_prompt: text of the unconditional branch.
        resize_in: side length at which the diffusion model sees the image (the release: 384), null for as it is.
        resize_out: side length handed to the classifier, null for the input's own.
        recompute: memory of one step instead of all under autograd, for one more forward pass; never changes a number.
            Null for what the prior says.

    Deviation from the authors' release: images are mapped to [-1, 1] and back for every image of the batch (the
    release un-normalises images 0 to 2 only).
    """

    randomized = True

    def __init__(
        self,
        prior: LatentPrior,
        captioner: nn.Module | None,
        steps: int,
        strength: float | None = None,
        start: int | None = None,
        spacing: str = "leading",
        guidance_scale: float = 1.0,
        negative_prompt: str = "",
        resize_in: int | None = None,
        resize_out: int | None = None,
        recompute: bool | None = None,
    ) -> None:
        super().__init__()
        if guidance_scale < 0:
            raise ValueError(f"purifier.guidance_scale={guidance_scale} is negative: use 1 for none, 5 as the release")
        self.prior, self.captioner = prior, captioner
        self.times = timesteps(steps, strength, start, spacing, prior.train_steps, prior.steps_offset)
        self.targets = targets(self.times, steps, start, prior.train_steps)
        self.guidance_scale, self.negative_prompt = guidance_scale, negative_prompt
        self.resize_in, self.resize_out = resize_in, resize_out
        self.recompute = prior.recompute if recompute is None else recompute

    def observe(self, x: Tensor, noise: Noise) -> list[str]:
        """Caption_BLIP = BLIP(x), section 3.1: one sentence per image."""
        return [""] * len(x) if self.captioner is None else self.captioner(x.detach(), noise)

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """x (B, 3, H, W) in [0, 1] -> purified images in [0, 1]; `observed` are given captions."""
        captions = self.observe(x, noise) if observed is None else observed
        C = self.prior.condition(captions, self.negative_prompt, self.guidance_scale)
        seen = _resize(x, self.resize_in)
        z_0 = recomputed(self.prior.encode, seen, noise) if self.recompute else self.prior.encode(seen, noise)
        z_t = add_noise(z_0, self.prior.alpha(self.times[0]), noise)
        z_0 = reverse(self.prior, z_t, self.times, self.targets, C, sampler.ddim, noise, recompute=self.recompute)
        purified = recomputed(self.prior.decode, z_0) if self.recompute else self.prior.decode(z_0)
        return _resize(purified, self.resize_out or tuple(x.shape[-2:])).clamp(0, 1)


def _resize(x: Tensor, size: int | tuple[int, ...] | None) -> Tensor:
    """Bilinear with antialiasing, the release's choice; images already of that size pass untouched."""
    size = (size, size) if isinstance(size, int) else size
    if size is None or tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
