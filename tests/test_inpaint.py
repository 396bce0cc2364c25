"""Conditioned denoising: equal to the library's pipeline, exact in its gradient, and honest about what it cannot see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, UNet2DConditionModel
from torch import Tensor

from lgap_bench.detector.base import Detector, Found, decode
from lgap_bench.noise import Noise, streams
from lgap_bench.prior.latent import LatentPrior, load
from lgap_bench.purifier.inpaint import Inpaint
from lgap_bench.purifier.wavelet import shrunk


class Corner(Detector):
    """Finds a seven in the upper left quarter of every image, or nothing."""

    names = ("six", "seven")

    def __init__(self, nothing: bool = False) -> None:
        super().__init__()
        self.nothing = nothing

    def find(self, x: Tensor, noise: Noise | None) -> list[Found]:
        found = []
        for image in x:
            mask = torch.zeros(image.shape[-2:], dtype=torch.bool)
            if not self.nothing:
                mask[: mask.shape[0] // 2, : mask.shape[1] // 2] = True
            found.append(
                Found(() if self.nothing else ("seven",), torch.ones(1), torch.tensor([[0, 0, 0.5, 0.5]]), mask)
            )
        return found


@pytest.fixture(scope="module")
def prior() -> LatentPrior:
    """The miniature's autoencoder and text model, and a random network of nine channels."""
    torch.manual_seed(0)
    made = load("embedded:digits/latent")
    made.unet = UNet2DConditionModel.from_config({**made.unet.config, "in_channels": 9}).eval().requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def draws(count: int) -> Noise:
    return streams(0, range(count))["score"].draws()


def purifier(prior: LatentPrior, **settings) -> Inpaint:
    detector = settings.pop("detector", Corner())
    return Inpaint(prior, detector, None, **{"steps": 4, "spacing": "leading", "guidance_scale": 3.0, **settings})


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_it_is_the_librarys_pipeline_with_the_same_weights_and_noise(
    prior, images, strength, guidance_scale, monkeypatch
):
    """The pipeline draws as it pleases, so its two sources of noise are handed ours."""
    own = purifier(prior, strength=strength, guidance_scale=guidance_scale)
    noise = draws(3)
    observed = own.observe(images, noise)
    ours = own(images, noise, observed)

    scheduler = __import__("diffusers").DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False, clip_sample=False
    )  # fmt: skip
    pipe = StableDiffusionInpaintPipeline(
        prior.vae, prior.text_encoder, prior.tokenizer, prior.unet, scheduler, None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    encoded = []

    def encode(image: Tensor, generator: object) -> Tensor:
        """Ours in the pipeline's order: below strength 1 the image first, the masked image last."""
        tag = "masked vae" if strength == 1 or encoded else "vae"
        encoded.append(tag)
        return prior.encode(image / 2 + 0.5, noise, tag)

    monkeypatch.setattr(pipe, "_encode_vae_image", encode)
    module = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint.randn_tensor"
    monkeypatch.setattr(module, lambda shape, **_: noise.normal(torch.zeros(shape), "forward"))
    masks = torch.stack([decode(each)[1] for each in observed])[:, None].float()
    theirs = pipe(
        prompt=own.words(observed), image=images, mask_image=masks, height=32, width=32, strength=strength,
        num_inference_steps=4, guidance_scale=guidance_scale, output_type="pt",
    ).images  # fmt: skip
    assert encoded == (["masked vae"] if strength == 1 else ["vae", "masked vae"])
    assert torch.allclose(ours, theirs, atol=1e-5), (ours - theirs).abs().max()


@pytest.mark.parametrize("size", [1, 3, 8])
def test_an_image_is_purified_alike_alone_and_in_a_batch(prior, size):
    x = torch.rand(size, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    own, noise = purifier(prior), draws(size)
    together = own(x, noise)
    alone = torch.cat([own(x[i : i + 1], noise.rows(i, i + 1)) for i in range(size)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_at_strength_1_nothing_inside_the_mask_reaches_the_result_and_everything_outside_may(prior, images):
    own, noise = purifier(prior), draws(3)
    observed = own.observe(images, noise)
    x = images.clone().requires_grad_(True)
    own(x, noise, observed).square().sum().backward()
    inside = decode(observed[0])[1]
    assert (x.grad[..., inside] == 0).all()
    assert (x.grad[..., ~inside] != 0).float().mean() > 0.9
    changed = torch.where(inside, 1 - images, images)
    assert torch.equal(own(changed, noise, observed), own(images, noise, observed))


@pytest.mark.parametrize(
    "settings", [{}, {"strength": 0.5}, {"region": "outside", "paste": True}, {"region": "all", "strength": 0.5}]
)
def test_the_gradient_is_that_of_finite_differences(prior, images, settings):
    double = load("embedded:digits/latent").double()
    double.unet = UNet2DConditionModel.from_config(prior.unet.config).double().eval().requires_grad_(False)
    double.unet.load_state_dict({key: value.double() for key, value in prior.unet.state_dict().items()})
    own, noise, x = purifier(double, **settings), draws(1), images[:1].double() * 0.8 + 0.1
    observed = own.observe(x, noise)
    # Away from where the decoder's clipping would have no slope.
    weight = torch.randn(1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    loss = lambda z: (own(z, noise, observed) * weight).sum()  # noqa: E731
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    step = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(4))
    for h in (1e-5, 1e-6):
        measured = float(loss(x + h * step) - loss(x - h * step)) / (2 * h)
        if measured == pytest.approx(float((gradient * step).sum()), rel=1e-6):
            return
    assert measured == pytest.approx(float((gradient * step).sum()), rel=1e-6)


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_a_recomputed_step_has_the_same_gradient_though_only_the_condition_has_one(prior, images, memory):
    def gradient(gib: float | None) -> Tensor:
        prior.memory = gib
        own, noise = purifier(prior), draws(3)
        x = images.clone().requires_grad_(True)
        own(x, noise, own.observe(images, noise)).square().sum().backward()
        prior.memory = None
        return x.grad

    assert torch.allclose(gradient(memory), gradient(None), atol=1e-6)


def test_outside_keeps_what_was_detected_and_regenerates_the_rest(prior, images):
    own, noise = purifier(prior, region="outside", paste=True), draws(3)
    observed = own.observe(images, noise)
    inside = decode(observed[0])[1]
    purified = own(images, noise, observed)
    assert torch.equal(purified[..., inside], images[..., inside])
    assert ((purified - images)[..., ~inside].abs() > 0).float().mean() > 0.9
    assert torch.equal(own.masks(observed, images)[0, 0].bool(), ~inside)


def test_where_nothing_is_found_pasting_gives_the_image_back_and_outside_regenerates_all(prior, images):
    noise, nothing = draws(3), Corner(nothing=True)
    kept = purifier(prior, paste=True, detector=nothing)(images, noise)
    assert torch.equal(kept, images)
    everything = purifier(prior, region="outside", paste=True, detector=nothing)(images, noise)
    assert ((everything - images).abs() > 0).float().mean() > 0.99


def test_the_words_are_the_detectors_in_its_own_order(prior, images):
    own = purifier(prior)
    observed = own.observe(images, draws(3))
    assert own.words(observed) == ["a photo of a seven"] * 3
    assert own.words(purifier(prior, text="none").observe(images, draws(3))) == [""] * 3


def test_bad_settings_are_refused_in_one_line(prior, images):
    with pytest.raises(ValueError, match="4 channels: it needs an inpainting model of 9"):
        purifier(load("embedded:digits/latent"))
    with pytest.raises(ValueError, match=r"purifier.region=around is not known: use inside, outside or all"):
        purifier(prior, region="around")
    with pytest.raises(ValueError, match="without a captioner"):
        purifier(prior, text="caption")
    small = purifier(prior).observe(images[..., :16, :16], draws(3))
    with pytest.raises(ValueError, match=r"a mask is \(16, 16\) for images of \(32, 32\)"):
        purifier(prior)(images, draws(3), small)


def test_the_wavelet_denoiser_keeps_the_image_at_zero_and_takes_noise_away():
    generator = torch.Generator().manual_seed(5)
    flat = torch.full((2, 3, 13, 16), 0.5)
    noisy = flat + 0.05 * torch.randn(flat.shape, generator=generator)
    assert torch.equal(shrunk(noisy, 0.0), noisy)
    assert torch.allclose(shrunk(noisy, 1e-12), noisy.clamp(0, 1), atol=1e-6)
    cleaned = shrunk(noisy, 0.15)
    assert (cleaned - flat)[..., :12, :].std() < 0.4 * (noisy - flat).std()
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 1.0  # an edge on the grid's own line has no detail
    assert np.allclose(shrunk(step, 0.1), step)
