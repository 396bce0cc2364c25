"""Published checkpoints of pixel priors, converted once to a folder that `lgap_bench.prior.pixel.load` reads.

A prior whose `weights` are such a file is converted into the user's cache by itself. By hand:

    python -m lgap_bench.prior.convert checkpoint_8.pth FOLDER    Score SDE's CIFAR-10 DDPM++ (its EMA weights)
    python -m lgap_bench.prior.convert 256x256_diffusion_uncond.pt FOLDER    OpenAI's unconditional ImageNet model
    python -m lgap_bench.prior.convert edm-cifar10-32x32-uncond-vp.pkl FOLDER    EDM's CIFAR-10 model (its EMA weights)

Nothing in a file is executed: `.pt` and `.pth` are read with `weights_only=True`, `.pkl` by a reader with a list of its own.
Every tensor of the checkpoint has to be one of the network's, of its shape, and the other way round.
"""

from __future__ import annotations

import argparse
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.prior import edm as karras
from lgap_bench.prior.ddpmpp import DDPMpp
from lgap_bench.prior.names import Names, adm_names, edm_names, score_sde_names
from lgap_bench.runtime import persistent
from lgap_bench.runtime.errors import one_line_errors

# Score SDE's vp/cifar10_ddpmpp_deep_continuous: 106,632,579 parameters.
DDPMPP_DEEP: dict[str, Any] = {
    "nf": 128,
    "ch_mult": (1, 2, 2, 2),
    "num_res_blocks": 8,
    "attn_resolutions": (16,),
    "image_size": 32,
}
# EDM's edm-cifar10-32x32-uncond-vp.pkl, which is DDPM++ in other widths.
EDM_CIFAR: dict[str, Any] = {
    "nf": 128,
    "ch_mult": (2, 2, 2),
    "num_res_blocks": 4,
    "attn_resolutions": (16,),
    "image_size": 32,
}
# OpenAI's 256x256_diffusion_uncond.pt as a UNet2DModel: 552,814,086 parameters. What loads without complaint and is wrong otherwise: freq_shift,
# flip_sin_to_cos, attention_head_dim, norm_eps, and attn_norm_num_groups, which is not taken from norm_num_groups.
ADM_256: dict[str, Any] = {
    "sample_size": 256,
    "in_channels": 3,
    "out_channels": 6,  # noise, then the learned range of the variance
    "block_out_channels": (256, 256, 512, 512, 1024, 1024),
    "down_block_types": ("ResnetDownsampleBlock2D",) * 3 + ("AttnDownBlock2D",) * 3,
    "up_block_types": ("AttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",) * 3,
    "layers_per_block": 2,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "attention_head_dim": 64,
    "norm_num_groups": 32,
    "attn_norm_num_groups": 32,
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}


def read(file: Path | str) -> Any:
    """What a PyTorch checkpoint holds, on the CPU, without running code from it. ValueError in one line if it is none."""
    if not Path(file).is_file():
        raise ValueError(f"{file} is no file: give the downloaded checkpoint")
    if Path(file).suffix == ".pkl":
        try:
            return persistent.read(Path(file))
        except ValueError as error:
            raise ValueError(f"{file} is no EDM pickle ({error}): download it again") from None
    try:
        # Mapped, so that an optimizer's state that nobody asks for is never read.
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # bad zip, bad pickle, a class that is not on the allow-list: all mean a wrong file
        # torch's own sentence is left out: it advises to load the file unsafely
        raise ValueError(
            f"{file} is no checkpoint of tensors alone ({type(error).__name__}): download it again"
        ) from None


def score_sde(checkpoint: Any, net: DDPMpp) -> DDPMpp:
    """Load the EMA weights of a Score SDE training state into net (may be on the meta device); in float32, returns it.

    The EMA is a list without names. It was made of the model's parameters, so its order is that of the model's keys
    without `sigmas`, a buffer; every shape is compared.

    Raises:
        ValueError: for another container, another number of EMA tensors, other names or other shapes.
    """
    if not isinstance(checkpoint, Mapping) or not {"model", "ema"} <= checkpoint.keys():
        raise ValueError(
            f"a Score SDE checkpoint holds optimizer, model, ema and step; this file holds {_summary(checkpoint)}"
        )
    ema = checkpoint["ema"]
    ema = ema.get("shadow_params") if isinstance(ema, Mapping) else ema
    names = [key.removeprefix("module.") for key in _tensors(checkpoint["model"])]
    names = [name for name in names if name != "sigmas"]
    if not isinstance(ema, list | tuple):
        raise ValueError(f"the checkpoint's ema holds {_summary(checkpoint['ema'])}, not a list shadow_params")
    if len(ema) != len(names):
        raise ValueError(
            f"the checkpoint's ema has {len(ema)} tensors, its model {len(names)}: they are not one network's"
        )
    return _load(dict(zip(names, ema, strict=True)), net, score_sde_names(net))


def adm(checkpoint: Any, net: Any) -> Any:
    """Load a guided-diffusion state dict into a UNet2DModel (may be on the meta device); in float32, returns it.

    Raises:
        ValueError: for other names or other shapes, for instance of a class-conditional model.
    """
    return _load(_tensors(checkpoint), net, adm_names(net))


def edm(checkpoint: Any, net: DDPMpp) -> karras.EDM:
    """Load the EMA network of an EDM pickle, as `persistent.read` holds it, into net (may be on the meta device).

    Raises:
        ValueError: for another class of network or preconditioning, a class-conditional one, other names or shapes.
    """
    outer = checkpoint.get("ema") if isinstance(checkpoint, Mapping) else None
    inner = (outer.state.get("_modules") or {}).get("model") if isinstance(outer, persistent.Held) else None
    if not isinstance(outer, persistent.Held) or not isinstance(inner, persistent.Held):
        raise ValueError(f"an EDM pickle holds a network under ema; this file holds {_summary(checkpoint)}")
    if (outer.class_name, inner.class_name) != ("EDMPrecond", "SongUNet"):
        raise ValueError(
            f"it holds {inner.class_name} in {outer.class_name}, not SongUNet in EDMPrecond: is it another model?"
        )
    if outer.state.get("sigma_data", karras.SIGMA_DATA) != karras.SIGMA_DATA or outer.state.get("label_dim"):
        raise ValueError("it was trained with class labels or another sigma_data: give the unconditional model")
    # Filters of resampling are constants, and augmentation labels are zero outside training.
    left_out = ("resample_filter", "map_augment.weight")
    state = {name: tensor for name, tensor in persistent.tensors(inner) if not name.endswith(left_out)}
    return karras.EDM(_load(state, net, edm_names(net)))


def kind_of(checkpoint: Any) -> str:
    """Which of the three a file's content is: `score_sde`, `adm` or `edm`. Raises ValueError if it is none."""
    if isinstance(checkpoint, Mapping):
        if isinstance(checkpoint.get("ema"), persistent.Held):
            return "edm"
        if {"model", "ema"} <= checkpoint.keys():
            return "score_sde"
        if any(str(name).startswith("input_blocks.") for name in checkpoint):
            return "adm"
    raise ValueError(
        f"it is no training state of Score SDE, state dict of guided diffusion or pickle of EDM: it holds {_summary(checkpoint)}"
    )


def _load(state: dict[str, Tensor], net: nn.Module, names: Names) -> Any:
    """Rename, check and load; the tensors become the network's weights as they are."""
    ours = net.state_dict()
    lacking = [name for name in names if name not in state]
    foreign = [name for name in state if name not in names]
    if lacking:
        raise ValueError(
            f"the checkpoint lacks {len(lacking)} tensors of this network, the first is {lacking[0]}: is it another model?"
        )
    if foreign:
        raise ValueError(
            f"the checkpoint has {len(foreign)} tensors that this network lacks, the first is {foreign[0]}: is it another model?"
        )
    converted = {}
    for name, entry in names.items():
        tensor = state[name]
        expected = entry.shape([ours[target].shape for target in entry.targets])
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != expected:
            raise ValueError(
                f"the checkpoint's {name} is {_shape(tensor)}, this network's {expected}: is it another model?"
            )
        for target, part in zip(entry.targets, entry.split(tensor.float(), len(entry.targets)), strict=True):
            converted[target] = part.contiguous()
    net.load_state_dict(converted, assign=True)
    return net.eval().requires_grad_(False)


def _tensors(state: Any) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"a state dict maps names to tensors; this file holds {_summary(state)}: is it another model?")
    return dict(state)


def _summary(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"{len(content)} entries ({', '.join(map(str, list(content)[:4]))}{', ...' if len(content) > 4 else ''})"
    return f"a {type(content).__name__}"


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def write(file: Path | str, folder: Path | str, kind: str | None = None) -> int:
    """Convert the checkpoint `file` to `folder` (new), with `unet` and `scheduler`; returns the number of parameters.

    kind: `score_sde`, `adm` or `edm`, None for what the file looks like. Raises ValueError in one line that begins with
    the file's name; nothing is left behind then.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists already: delete it or give another folder")
    checkpoint = read(file)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a conversion that was killed
    try:
        kind = kind or kind_of(checkpoint)
        net = _filled(kind, checkpoint)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    (net.save_pretrained if kind == "adm" else net.save)(partial / "unet")
    _scheduler(kind).save_pretrained(partial / "scheduler")
    os.replace(partial, folder)
    return sum(weight.numel() for weight in net.parameters())


def check(file: Path | str) -> None:
    """Raise ValueError if `write` would refuse the file. Nothing is written."""
    checkpoint = read(file)
    try:
        _filled(kind_of(checkpoint), checkpoint)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _filled(kind: str, checkpoint: Any) -> Any:
    """The network of a kind with the checkpoint's tensors."""
    from diffusers import UNet2DModel

    with torch.device("meta"):  # no random weights, and no second copy of 2 GB
        net: Any = UNet2DModel(**ADM_256) if kind == "adm" else DDPMpp(**(EDM_CIFAR if kind == "edm" else DDPMPP_DEEP))
    return {"score_sde": score_sde, "adm": adm, "edm": edm}[kind](checkpoint, net)


def _scheduler(kind: str) -> Any:
    """Of this only the betas are read here; the rest is for diffusers' own pipelines."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        trained_betas=karras.betas() if kind == "edm" else None,
        variance_type="learned_range" if kind == "adm" else "fixed_small",
        clip_sample=True,
    )


def main() -> None:
    """The command; see the module."""
    parser = argparse.ArgumentParser(
        prog="python -m lgap_bench.prior.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="the downloaded checkpoint")
    parser.add_argument("folder", type=Path, help="where to write; must not exist")
    arguments = parser.parse_args()
    count = write(arguments.file, arguments.folder)
    print(f"{arguments.folder}: {count:,} parameters")


if __name__ == "__main__":
    one_line_errors(main)
