"""A pixel-space diffusion model in diffusers' folder layout: `unet` (UNet2DModel or DDPM++) and `scheduler`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lgap_bench.noise import Noise
from lgap_bench.prior import convert, ddpmpp, edm, schedule
from lgap_bench.prior.resize import resized
from lgap_bench.runtime import converted, examined
from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.choices import require_choice
from lgap_bench.runtime.pretrained import pretrained, require_finite

Labels = Literal["scaled", "floor"]


class PixelPrior(nn.Module):
    """A noise network on images in [-1, 1] with DDPM's schedule; weights frozen.

    The same network serves discrete samplers (timestep labels 0 ... T - 1) and continuous ones (t in [0, 1]).

    Args:
        unet: (x_t, label) -> noise (B, C, H, W), or noise and variance on 2C channels (`learned range`).
        alphas: cumulative products of 1 - beta, (T,).
        labels: how a continuous t is told to the network: `scaled`, (T - 1) t as Score SDE; `floor`, floor(T t) in
            float32, as DiffPure calls OpenAI's models.
        memory: GiB of activations that purifiers may hold for the exact gradient, null for all; see `purifier.memory`.
        size: side to which images are brought before they are purified, and from which they are brought back (DiffPure's
            256 on ImageNet); null for as they are.
    """

    alphas_f64: Tensor

    def __init__(
        self,
        unet: nn.Module,
        alphas: Tensor,
        labels: Labels = "scaled",
        memory: float | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__()
        require_choice("prior.labels", labels, Labels)
        self.unet, self.labels, self.memory, self.size = unet, labels, memory, size
        self.alphas_f64 = alphas.double().cpu()  # float64 coefficients, whatever the network computes in
        config: Any = unet.config
        self.channels: int = config["in_channels"]
        self.learned_variance: bool = config["out_channels"] == 2 * config["in_channels"]
        self.eval().requires_grad_(False)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What is called again and again, for torch.compile."""
        return (self.unet,)

    @property
    def train_steps(self) -> int:
        """T, the number of steps of the discrete schedule."""
        return len(self.alphas_f64)

    def alpha(self, t: int) -> float:
        """Cumulative signal a_t of timestep t; 1 before the first (t < 0), the end of the trajectory."""
        return self.alphas_f64[t].item() if t >= 0 else 1.0

    def label(self, t: Any) -> Any:
        """What the network is called with at continuous time t in [0, 1], a number or a tensor."""
        if isinstance(self.unet, edm.EDM):  # it was trained on noise levels
            return self.unet.label(t)
        if self.labels == "scaled":
            return (self.train_steps - 1) * t
        floored = torch.floor(torch.as_tensor(t).float() * self.train_steps)
        return floored if isinstance(t, Tensor) else int(floored)

    def check_sampler(self, sampler: Any) -> None:
        """Raise ValueError if the sampler and the network's variance output do not go together."""
        schedule.check_variance(getattr(sampler, "variance", None), self.learned_variance)

    def encode(self, x: Tensor, noise: Noise) -> Tensor:
        """Images in [0, 1] -> [-1, 1], in float32 at least: steps of 1e-3 are lost in bfloat16; draws nothing."""
        return 2 * resized(x.to(torch.promote_types(x.dtype, torch.float32)), self.size, antialias=False) - 1

    def image(self, x: Tensor, size: tuple[int, ...] | None = None) -> Tensor:
        """A state as a classifier sees it, at a (height, width) or as it is; not clipped."""
        return resized((x + 1) / 2, size, antialias=False)

    def decode(self, x: Tensor, size: tuple[int, ...] | None = None) -> Tensor:
        """Purified images in [0, 1], clipped, at a (height, width) or as they are."""
        return self.image(x, size).clamp(0, 1)

    def predict(self, x_t: Tensor, label: Any, condition: None = None) -> tuple[Tensor, Tensor | None]:
        """The noise in x_t, and the variance output of networks that have one.

        `label` is a number or one per image. It goes in as float32: diffusers' networks cut a plain 199.8 down to 199.
        """
        labels = torch.as_tensor(label, dtype=torch.float32, device=x_t.device).expand(len(x_t))
        weight = next(self.unet.parameters(), x_t)
        output = self.unet(x_t.to(weight.dtype), labels)
        output = (output if isinstance(output, Tensor) else output.sample).to(x_t.dtype)
        if self.learned_variance:
            e, v = output.chunk(2, dim=1)
            return e, v
        return output, None


def load(weights: str, labels: Labels = "scaled", memory: float | None = None, size: int | None = None) -> PixelPrior:
    """A pixel prior from a folder, a name of the hub or a published file, converted once (see `prior.convert`).

    The folder holds `unet` (UNet2DModel, or our DDPM++ or EDM) and `scheduler`, whose betas are the discrete schedule; or lies
    flat, as `google/ddpm-cifar10-32`: the network's files and `scheduler_config.json`.
    """
    from diffusers import DDPMScheduler

    network, scheduler_folder = folders(weights)
    scheduler = DDPMScheduler.from_pretrained(scheduler_folder)
    alphas = _alphas(scheduler.config, weights)
    prior = PixelPrior(_network(network, weights), alphas, labels, memory, size)
    require_finite(prior, weights)
    return prior


def examine(weights: str) -> None:
    """Raise ValueError for what `load` would refuse, by headers and configs; of a published file, by its names and shapes."""
    from diffusers import DDPMScheduler, UNet2DModel

    file = weight_files.place(weights)
    if file.is_file():
        return convert.check(file)
    network, scheduler = folders(weights)
    _alphas(DDPMScheduler.from_pretrained(scheduler).config, weights)
    if edm.class_name(network) in (ddpmpp.CLASS_NAME, edm.CLASS_NAME):
        ddpmpp.check(network)
    else:
        examined.examine(UNet2DModel, network, weights)


def folders(weights: str) -> tuple[Path, Path]:
    """Where the network and the scheduler of a pixel prior lie."""
    weights = converted.folder_of(weights, convert.write)
    flat = weight_files.locate(weights)
    if (flat / "scheduler_config.json").is_file() and not (flat / "unet").exists():
        return flat, flat
    folder = weight_files.locate(weights, weight_files.PIXEL_PARTS)
    return folder / "unet", folder / "scheduler"


def _network(folder: Path, weights: str) -> Any:
    from diffusers import UNet2DModel

    ours = {ddpmpp.CLASS_NAME: ddpmpp.from_folder, edm.CLASS_NAME: edm.from_folder}.get(edm.class_name(folder) or "")
    return ours(folder) if ours else pretrained(UNet2DModel, folder, weights)


def _alphas(config: Any, weights: str) -> Tensor:
    """Cumulative products of 1 - beta in float64; the scheduler's own are float32 and 2e-7 off after 100 factors."""
    if config.prediction_type != "epsilon":
        raise ValueError(
            f"weights={weights}: its scheduler says prediction_type={config.prediction_type}: only epsilon is known"
        )
    if config.trained_betas is not None:
        return (1 - torch.tensor(config.trained_betas, dtype=torch.float64)).cumprod(0)
    if config.beta_schedule != "linear":
        raise ValueError(f"prior: beta_schedule={config.beta_schedule} is not known: pixel priors have linear betas")
    betas = torch.linspace(config.beta_start, config.beta_end, config.num_train_timesteps, dtype=torch.float64)
    return (1 - betas).cumprod(0)
