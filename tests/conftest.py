"""Shared parts: the miniature's real architectures with small random weights, so that tests need no trained files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchless import Torchless

from lgap_bench.attack.problem import Problem
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import Full, View
from lgap_bench.captioner.blip import Blip
from lgap_bench.defense import Defense
from lgap_bench.prior import latent
from lgap_bench.prior.latent import LatentPrior
from lgap_bench.purifier.base import Purifier

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Digests of data folders are kept beside the tests' own files, never in the home folder of who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LGAP_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def torchless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Torchless]:
    """`torchless("run", "n=0")`: the command in a warm process of all tests in which torch is not imported."""
    process = Torchless(tmp_path_factory.mktemp("torchless"))
    yield process
    process.close()


CAPTIONS = [f"a photo of a handwritten {word}" for word in ("zero", "one", "two", "three", "four", "five", "six")]


@pytest.fixture(scope="session")
def latent_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A latent diffusion model with random weights, saved as `make zoo` saves the trained one."""
    from diffusers import AutoencoderKL

    from lgap_bench.zoo import latent as zoo

    folder = tmp_path_factory.mktemp("weights") / "latent"
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
        scaling_factor=0.7,
    )
    words, text, unet = zoo.build()
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "attn2" in name:  # fresh weights barely listen to the caption; a test of the caption needs them to
                weight.mul_(2)
        vae.decoder.conv_out.weight.mul_(0.12)  # keeps images inside (0, 1), where the decoder's clipping has no kink
    vae.save_pretrained(folder / "vae")
    unet.save_pretrained(folder / "unet")
    text.save_pretrained(folder / "text_encoder")
    words.save_pretrained(folder / "tokenizer")
    zoo.scheduler().save_pretrained(folder / "scheduler")
    zoo.write_index(folder, "StableDiffusionImg2ImgPipeline")
    return folder


@pytest.fixture(scope="session")
def prior(latent_folder: Path) -> LatentPrior:
    """The random latent prior in float32; shared, so tests must not change it."""
    return latent.load(str(latent_folder))


@pytest.fixture(scope="session")
def prior64(latent_folder: Path) -> LatentPrior:
    """The same in float64, for tests of gradients."""
    return latent.load(str(latent_folder)).double()


def _blip(prompt: str = "", **search: int) -> Blip:
    from transformers import BlipImageProcessor, BlipProcessor

    from lgap_bench.zoo import captioner as zoo

    torch.manual_seed(1)
    model = zoo.build()
    with torch.no_grad():
        for weight in model.parameters():  # as above: without this every image gets the same words
            weight.mul_(3 if weight.dim() > 1 else 1)
        for name, token in zoo.tokenizer().get_vocab().items():  # no trained captioner says [PAD] or [MASK]
            if name in zoo.SPECIAL and name != "[SEP]":
                model.text_decoder.cls.predictions.bias[token] = -30
    images = BlipImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3)
    return Blip(model, BlipProcessor(images, zoo.tokenizer()), prompt, **{"max_length": 6, **search})


@pytest.fixture(scope="session")
def make_blip() -> Callable[..., Blip]:
    """Makes a random BLIP; the arguments are the captioner's (prompt, beams, min_length, max_length)."""
    return _blip


@pytest.fixture(scope="session")
def blip() -> Blip:
    """A random BLIP in float32; shared, so tests must not change it."""
    return _blip()


class Smooth(nn.Module):
    """A small classifier without kinks, so that finite differences and other attacks' steps can be met exactly."""

    def __init__(self, side: int = 16, classes: int = 5, seed: int = 2) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(6 * ((side - 1) // 2) ** 2, classes)
        )
        for weight in self.parameters():
            fan = weight[0].numel() if weight.dim() > 1 else 10
            weight.data = torch.randn(weight.shape, generator=generator) * 2 / fan**0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x - 0.5)


@pytest.fixture
def smooth() -> type[Smooth]:
    """The class of the small smooth classifier: `smooth(side, classes, seed)`."""
    return Smooth


def _images(count: int, side: int = 16, seed: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images away from the walls of [0, 1]; the i-th is the same however many are asked for."""
    rows = [torch.rand(3, side, side, generator=torch.Generator().manual_seed(1000 * seed + i)) for i in range(count)]
    return 0.2 + 0.6 * torch.stack(rows).to(dtype)


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """`images(count, side, seed, dtype)`: random images in [0.2, 0.8]."""
    return _images


def _problem(
    classifier: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    purifier: Purifier | None = None,
    view: type[View] = Full,
    threat: Threat | None = None,
    ids: Iterable[int] | None = None,
    seed: int = 0,
    captions: list[str] | None = None,
    max_rows: int = 512,
) -> Problem:
    defense = Defense(purifier or Purifier(), classifier)
    if y is None:
        y = classifier(x).argmax(1)
    threat = threat or Threat("linf", 8 / 255)
    numbers = tuple(range(100, 100 + len(x))) if ids is None else tuple(ids)
    return Problem(view(defense, max_rows), x, y, numbers, threat, seed, captions or [])


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    """`make_problem(classifier, x, ...)`; labels default to what the classifier says of x, ids to 100, 101, ..."""
    return _problem


@pytest.fixture
def ten(smooth: Callable[..., nn.Module]) -> nn.Module:
    """A frozen classifier of ten classes, as many as AutoAttack's nine targets need."""
    return smooth(classes=10).requires_grad_(False)
