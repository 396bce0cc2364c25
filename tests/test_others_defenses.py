"""Defenses of others, as they are: codecs, denoisers, random transforms, RobustBench's networks, a diffusers pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lgap_bench import evaluate, load_defense
from lgap_bench.dataset.digits import digits
from lgap_bench.runtime import libraries
from lgap_bench.runtime.weights import ZOO


@pytest.fixture(scope="module")
def net():
    return load_defense("dataset=digits", "purifier=none", "attack=none").classifier


def measured(defense, folder, attackers, count=4, **more):
    held = digits()
    given = {"eps": "24/255", "attackers": attackers, "progress": False, "outputs": folder, "score_draws": 3, **more}
    return evaluate(defense, held.images[:count], held.labels[:count], **given)


def test_torchvisions_jpeg_is_met_by_bpda_and_said_to_have_no_gradient(net, tmp_path):
    from torchvision.io import decode_jpeg, encode_jpeg

    def jpeg(x):
        coded = [encode_jpeg((image * 255).round().byte().cpu(), quality=50) for image in x.detach()]
        return torch.stack([decode_jpeg(each).float() / 255 for each in coded]).to(x)

    result = measured((jpeg, net), tmp_path, ["bpda attack.steps=4"])
    assert result.natural == 100
    assert "the purifier has no gradient" in " ".join(result.reasons) or result.robust == 0


def test_kornias_jpeg_has_an_exact_gradient(net, tmp_path):
    kornia = pytest.importorskip("kornia", reason="kornia is not installed")

    def jpeg(x):
        return kornia.enhance.jpeg_codec_differentiable(x, torch.tensor([50.0])).clamp(0, 1)

    result = measured((jpeg, net), tmp_path, ["full attack.steps=4"])
    assert result.natural == 100
    assert not result.notes


def test_total_variation_denoising_runs_as_scikit_image_gives_it(net, tmp_path):
    restoration = pytest.importorskip("skimage.restoration", reason="scikit-image is not installed")

    def smooth(x):
        images = [restoration.denoise_tv_chambolle(each, weight=0.1, channel_axis=0) for each in x.detach().numpy()]
        return torch.from_numpy(np.stack(images)).to(x).clamp(0, 1)

    assert measured((smooth, net), tmp_path, ["bpda attack.steps=2"]).natural == 100


def test_random_resize_and_pad_draws_for_every_image_of_its_own(net, tmp_path):
    class ResizeAndPad(nn.Module):
        def forward(self, x):
            side = int(torch.randint(26, 33, (1,)))
            left, top = (int(torch.randint(0, 33 - side, (1,))) for _ in range(2))
            small = F.interpolate(x, size=(side, side), mode="nearest")
            return net(F.pad(small, (left, 32 - side - left, top, 32 - side - top)))

    (record,) = measured(ResizeAndPad(), tmp_path, ["full attack.steps=2 attack.draws=2"]).records
    margins = np.asarray(list(record.samples()["clean_margin"]))
    assert margins.shape == (4, 3)
    assert len(np.unique(margins[0])) > 1


def test_an_untrained_network_of_robustbench_is_called_invalid(tmp_path):
    libraries.robustbench()
    from robustbench.model_zoo.architectures.resnet import ResNet18

    network = ResNet18()
    network.linear.bias.data[1] = 100.0  # always "one", which none of the first eight digits is
    result = measured(network, tmp_path, ["full attack.steps=1"], count=8)
    assert result.verdict == "invalid"
    assert "chance" in " ".join(result.reasons)


@pytest.fixture(scope="module")
def pipeline():
    """Stable Diffusion's img2img as diffusers gives it, with the miniature's models."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionImg2ImgPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    parts = {"vae": AutoencoderKL, "unet": UNet2DConditionModel, "scheduler": DDIMScheduler}
    parts |= {"text_encoder": CLIPTextModel, "tokenizer": CLIPTokenizer}
    folder = ZOO / "digits" / "latent"
    held = {name: kind.from_pretrained(folder / name) for name, kind in parts.items()}
    without = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    made = StableDiffusionImg2ImgPipeline(**held, **without)
    made.set_progress_bar_config(disable=True)

    def img2img(x):
        settings = {"strength": 0.5, "num_inference_steps": 6, "guidance_scale": 1.0, "output_type": "pt"}
        return made(prompt=[""] * len(x), image=x, **settings).images.clamp(0, 1)

    return img2img


def test_a_diffusers_pipeline_is_measured_as_a_purifier(pipeline, net, tmp_path):
    result = measured((pipeline, net), tmp_path, ["bpda attack.steps=1 attack.draws=1"], count=2)
    assert result.verdict == "upper bound"
    assert "torch.no_grad" in " ".join(result.reasons)


def test_a_diffusers_pipeline_under_the_exact_gradient_says_what_to_do(pipeline, net, tmp_path):
    with pytest.raises(ValueError, match="promises a gradient") as raised:
        measured(lambda x: net(pipeline(x)), tmp_path, ["full"], count=2)
    assert "use view=bpda, or attack=square view=query" in str(raised.value)
