"""Measure the miniature's components on the test split, write their model cards and SHA256SUMS."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F

from lgap_bench.captioner.blip import load as load_blip
from lgap_bench.classifier.wide_resnet import load as load_classifier
from lgap_bench.dataset.base import DataSet
from lgap_bench.dataset.digits import describe, digits
from lgap_bench.metric.caption import names_label
from lgap_bench.noise import streams
from lgap_bench.prior.latent import load as load_latent
from lgap_bench.runtime import weights as weight_files

DATA = "3,500 of the 5,000 MNIST images that come with the package (LeCun and Cortes, CC BY-SA 3.0); none of the test images"


@torch.no_grad()
def measure(data: DataSet) -> dict[str, dict[str, float]]:
    """Every figure of the cards, by component, rounded as the cards show them. Deterministic: noise is keyed by sample."""
    return {
        "standard": {"clean accuracy, %": _accuracy("standard", data)},
        "adversarial": {"clean accuracy, %": _accuracy("adversarial", data)},
        "blip": {"digit word in the caption, %": _captioned(data)},
        "latent": _latent(data),
        "pixel": {"noise prediction error": _pixel(data)},
    }


def _accuracy(name: str, data: DataSet) -> float:
    model = load_classifier(f"embedded:digits/{name}")
    guesses = torch.cat([model(x).argmax(1) for x in data.images[:].split(250)])
    return round(100 * (guesses == data.labels).float().mean().item(), 1)


def _captioned(data: DataSet) -> float:
    blip = load_blip("embedded:digits/blip", prompt="a photo of a", max_length=8)
    captions = [caption for x in data.images[:].split(250) for caption in blip(x)]
    named = [names_label(c, k, data.classes) for c, k in zip(captions, data.labels.tolist(), strict=True)]
    return round(100 * sum(named) / len(named), 1)


def _latent(data: DataSet) -> dict[str, float]:
    """PSNR of the autoencoder, and the network's noise error under true, empty and wrong captions at t = 499."""
    prior = load_latent("embedded:digits/latent")
    x, labels = data.images[:500], data.labels[:500]
    noise = streams(0, data.ids[:500].tolist())["score"].draws()
    z = prior.encode(x, noise)
    error = F.mse_loss(prior.decode(z), x)
    n = noise.normal(z, "forward")
    z_t = prior.alpha(499) ** 0.5 * z + (1 - prior.alpha(499)) ** 0.5 * n
    sources = {
        "true": describe(x, labels),
        "empty": [""] * len(x),
        "wrong": describe(x, (labels + 1) % 10),
    }
    errors = {
        f"noise error at t = 499, {name} caption": round(
            F.mse_loss(prior.noise(z_t, 499, prior.condition(captions, "", 1.0)), n).item(), 4
        )
        for name, captions in sources.items()
    }
    return {"reconstruction PSNR, dB": round(-10 * torch.log10(error).item(), 1), **errors}


def _pixel(data: DataSet) -> float:
    from diffusers import DDPMScheduler, UNet2DModel

    folder = weight_files.locate("embedded:digits/pixel")
    model = UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True).eval()
    schedule = DDPMScheduler.from_pretrained(folder / "scheduler")
    x = 2 * data.images[:500] - 1
    n = streams(0, data.ids[:500].tolist())["score"].draws().normal(x, "forward")
    t = torch.arange(500) * 2  # every second timestep once
    return round(F.mse_loss(model(schedule.add_noise(x, n, t), t).sample, n).item(), 4)


RECIPES = {
    "standard": "WideResNet-10-1, cross-entropy with label smoothing 0.05 on shifted images, 1,400 steps of 64.",
    "adversarial": "WideResNet-10-1 on PGD-5 images, linf 64/255 (ramped up over the first half), 900 steps of 64.",
    "blip": "BLIP at toy size (patch 8, width 64, 2 + 2 layers), teacher forcing on warped images, 6,000 steps of 64.",
    "latent": "AutoencoderKL (1,500 steps, three quarters of the images with grain), then UNet2DConditionModel and CLIPTextModel together (4,200 steps of 64). "
    "Stable Diffusion's folder layout.",
    "pixel": "UNet2DModel on images in [-1, 1], DDPM's linear schedule, 1,600 steps of 48.",
}


COMMANDS = {"latent": "vae` and then `python -m lgap_bench.zoo unet"}


def write_all(root: Path) -> None:
    """Measure the digits' components, write their cards and the manifest."""
    write_cards(root, measure(digits("test")), RECIPES, COMMANDS, "1,000 test images (latent and pixel: 500)")
    write_manifest()


def write_cards(
    root: Path,
    figures: dict[str, dict[str, float]],
    recipes: dict[str, str],
    commands: dict[str, str],
    measured: str,
) -> None:
    """figures.json, and one README.md per component."""
    (root / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    for name, values in figures.items():
        folder = root / name
        count = _parameters(folder)
        rows = "\n".join(f"| {figure} | {value} |" for figure, value in values.items())
        (folder / "README.md").write_text(
            f"# {root.name}/{name}\n\n{recipes[name]}\n\n"
            f"- Data: {DATA}.\n- Code: `python -m lgap_bench.zoo {commands.get(name, name)}`, seeds fixed.\n"
            f"- Parameters: {count:,}. Licence of the weights: MIT, as the code; the data's licence stays the data's.\n"
            f"- For miniature experiments only: these models know nothing but digits.\n\n"
            f"| measured on the {measured} | |\n| --- | --- |\n{rows}\n"
        )


def write_manifest() -> None:
    """SHA256SUMS of all weights below the zoo."""
    files = sorted(weight_files.ZOO.rglob("*.safetensors"))
    lines = [f"{weight_files.sha256(file)}  {file.relative_to(weight_files.ZOO).as_posix()}\n" for file in files]
    weight_files.MANIFEST.write_text("".join(lines))


def _parameters(folder: Path) -> int:
    from safetensors import safe_open

    total = 0
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            total += sum(torch.Size(tensors.get_slice(name).get_shape()).numel() for name in tensors.keys())  # noqa: SIM118
    return total
