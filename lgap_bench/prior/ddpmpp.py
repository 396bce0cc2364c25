"""DDPM++ (Song et al. 2021, "Score-Based Generative Modeling through SDEs", appendix H): the noise network of DiffPure and
COUP on CIFAR-10.

The U-Net that Score SDE calls `vp/cifar10_ddpmpp_deep_continuous`: its NCSN++ class without Fourier features, FIR filters
and progressive inputs. diffusers' `UNet2DModel` cannot say it: every sum of a skip and a branch is divided by sqrt(2), every
resampling block has a shortcut convolution, and on the way up only a level's last block has attention. Written for
evaluation: dropout (0.1 in training) and the initialisation of the reference are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lgap_bench.runtime import header
from lgap_bench.runtime.pretrained import outlined

CLASS_NAME = "DDPMpp"  # in config.json, where diffusers writes the name of its class
# Not diffusers' file name: its loader would read it into a network of another shape and fill the rest with random numbers.
WEIGHTS = "ddpmpp.safetensors"
SQRT2 = math.sqrt(2)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


class ResBlock(nn.Module):
    """BigGAN's residual block: resampling, if any, between the first activation and the first convolution."""

    def __init__(self, inputs: int, outputs: int, embedding: int, resample: nn.Module | None = None) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(embedding, outputs)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        plain = inputs == outputs and resample is None
        self.shortcut = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1)
        self.resample = resample or nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        h = h + self.time(embedding)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.shortcut(self.resample(x)) + h) / SQRT2


class Attention(nn.Module):
    """Self-attention over the pixels, one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, C, H, W); the time embedding is what every block is handed, and is not used here."""
        h = self.norm(x).flatten(2).transpose(1, 2)  # (B, H W, C)
        # Written out: torch's fused attention has no second derivative, which a gradient attack on a purifier that itself
        # follows this network's gradient (likelihood maximisation) needs. At 256 positions, as here, it is no slower.
        scores = self.query(h) @ self.key(h).transpose(1, 2) / h.shape[-1] ** 0.5
        h = scores.softmax(-1) @ self.value(h)
        return (x + self.out(h).transpose(1, 2).unflatten(2, x.shape[2:])) / SQRT2


class Stage(nn.ModuleList):
    """The blocks between two skip connections, one after the other."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            h = block(h, embedding)
        return h


class DDPMpp(nn.Module):
    """e(x_t, label): the noise in x_t. `lgap_bench.prior.convert.DDPMPP_DEEP` is CIFAR-10's published network.

    Args:
        nf: channels of the first level; a multiple of 4.
        ch_mult: channels of each level in units of nf, finest first; each level halves the side.
        num_res_blocks: residual blocks per level on the way down; one more on the way up.
        attn_resolutions: sides (pixels) of the levels that have attention; the coarsest one always has it in the middle.
        image_size: side of the images in pixels.

    Raises:
        ValueError: for a width or a side that cannot be built.
    """

    def __init__(
        self, nf: int, ch_mult: Sequence[int], num_res_blocks: int, attn_resolutions: Sequence[int], image_size: int
    ) -> None:
        super().__init__()
        if nf < 4 or nf % 4:
            raise ValueError(f"DDPM++: nf={nf} is not a multiple of 4")
        if not ch_mult or image_size % 2 ** (len(ch_mult) - 1):
            raise ValueError(f"DDPM++: image_size={image_size} cannot be halved {len(ch_mult) - 1} times")
        self.options: dict[str, Any] = {
            "nf": nf,
            "ch_mult": list(ch_mult),
            "num_res_blocks": num_res_blocks,
            "attn_resolutions": list(attn_resolutions),
            "image_size": image_size,
        }
        # Under diffusers' names, since a prior reads them from any network.
        self.config: dict[str, Any] = {"in_channels": 3, "out_channels": 3, **self.options}
        wide = 4 * nf
        self.time = nn.Sequential(nn.Linear(nf, wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU())
        self.conv_in = nn.Conv2d(3, nf, 3, padding=1)
        self.down = nn.ModuleList()
        skips, width, side, coarsest = [nf], nf, image_size, len(ch_mult) - 1
        for level, mult in enumerate(ch_mult):
            for _ in range(num_res_blocks):
                stage = Stage([ResBlock(width, nf * mult, wide)])
                width = nf * mult
                if side in attn_resolutions:
                    stage.append(Attention(width))
                self.down.append(stage)
                skips.append(width)
            if level < coarsest:
                self.down.append(Stage([ResBlock(width, width, wide, nn.AvgPool2d(2))]))
                skips.append(width)
                side //= 2
        self.middle = Stage([ResBlock(width, width, wide), Attention(width), ResBlock(width, width, wide)])
        self.up = nn.ModuleList()
        for level, mult in reversed(list(enumerate(ch_mult))):
            for block in range(num_res_blocks + 1):
                stage = Stage([ResBlock(width + skips.pop(), nf * mult, wide)])
                width = nf * mult
                if block == num_res_blocks and side in attn_resolutions:
                    stage.append(Attention(width))
                if block == num_res_blocks and level > 0:
                    stage.append(ResBlock(width, width, wide, nn.Upsample(scale_factor=2)))
                    side *= 2
                self.up.append(stage)
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, labels: Tensor | float) -> Tensor:
        """The noise in x: (B, 3, side, side) around [-1, 1] -> the same shape.

        labels: 999 t with t in [0, 1], not rounded: one number, or one per image (B,).
        """
        side = self.config["image_size"]
        if x.shape[1:] != (3, side, side):
            raise ValueError(
                f"DDPM++ was built for images of 3 x {side} x {side}, got {' x '.join(map(str, x.shape[1:]))}"
            )
        labels = torch.as_tensor(labels, dtype=torch.float32, device=x.device).expand(len(x))
        embedding = self.time(frequencies(labels, self.config["nf"]).to(x.dtype))
        h = self.conv_in(x)
        skips = [h]
        for stage in self.down:
            h = stage(h, embedding)
            skips.append(h)
        h = self.middle(h, embedding)
        for stage in self.up:
            h = stage(torch.cat([h, skips.pop()], 1), embedding)
        return self.conv_out(F.silu(self.norm_out(h)))

    def save(self, folder: Path | str, name: str = CLASS_NAME) -> None:
        """Write config.json, with the name of the class that reads it, and the weights to this folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"_class_name": name, **self.options}, indent=2) + "\n")
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / WEIGHTS)


def frequencies(labels: Tensor, width: int) -> Tensor:
    """(B,) float32 -> (B, width): sines, then cosines, of labels times width / 2 frequencies from 1 down to 1e-4.

    In float32 whatever the network's dtype: the network was trained on this table with its rounding.
    """
    half = width // 2
    scale = math.log(10000) / (half - 1)
    table = torch.exp(torch.arange(half, dtype=torch.float32, device=labels.device) * -scale)
    angles = labels[:, None] * table
    return torch.cat([angles.sin(), angles.cos()], 1)


def from_folder(folder: Path | str) -> DDPMpp:
    """The network that `save` wrote. ValueError in one line for anything else: other classes, other or missing tensors."""
    return fill_from(Path(folder), CLASS_NAME)


def check(folder: Path) -> None:
    """Raise ValueError if `from_folder`, of this class or EDM's, would refuse the folder, by its header alone."""
    config = json.loads((folder / "config.json").read_text())
    name = config.pop("_class_name", None)
    with torch.device("meta"):
        own = {key: tuple(value.shape) for key, value in DDPMpp(**config).state_dict().items()}
    held = {key: entry.shape for key, entry in header.read(folder / WEIGHTS).items()}
    wrong = sorted(key for key in own.keys() | held.keys() if own.get(key) != held.get(key))
    if wrong:
        raise ValueError(
            f"{folder} is no {name} network (its {wrong[0]} is missing, unknown or of another shape): convert it again"
        )


def fill_from(folder: Path, class_name: str) -> DDPMpp:
    """The network in a folder whose config.json names this class. ValueError in one line for anything else."""
    kind = {CLASS_NAME: "DDPM++"}.get(class_name, class_name)
    mend = "convert the checkpoint again (python -m lgap_bench.prior.convert FILE FOLDER)"
    try:
        config = json.loads((folder / "config.json").read_text())
        name = config.pop("_class_name", None)
        if name != class_name:
            raise ValueError(f"config.json says _class_name {name}, not {class_name}")
        with torch.device("meta"):
            net = DDPMpp(**config)
        if not outlined(folder):
            # assign: the tensors of the file become the weights, and no random ones are made first
            net.load_state_dict(load_file(folder / WEIGHTS), assign=True)
    except (
        Exception
    ) as error:  # JSON, safetensors and torch raise a dozen types, and all of them say that the folder is bad
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder} is no {kind} network ({reason[:200]}): {mend}") from None
    return net.eval().requires_grad_(False)
