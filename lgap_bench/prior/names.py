"""Which tensor of a published checkpoint is which of our network: names, and where the layout differs, how.

Facts of the two formats, in the order in which the original classes number their blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lgap_bench.prior.ddpmpp import Attention, DDPMpp, ResBlock

Shape = tuple[int, ...]


def _same(tensor: Tensor, parts: int) -> list[Tensor]:
    return [tensor]


def _transposed(tensor: Tensor, parts: int) -> list[Tensor]:
    return [tensor.T]


def _flat(tensor: Tensor, parts: int) -> list[Tensor]:
    """A convolution over one position, (out, in, 1), is a linear layer."""
    return [tensor.squeeze(-1)]


@dataclass(frozen=True)
class Entry:
    """Where one tensor of a checkpoint goes.

    Attributes:
        targets: our names; several where one tensor is split.
        split: (tensor, number of targets) -> the tensors of these names.
        shape: our shapes, one per target -> the checkpoint's.
    """

    targets: tuple[str, ...]
    split: Callable[[Tensor, int], Sequence[Tensor]] = _same
    shape: Callable[[Sequence[Sequence[int]]], Shape] = lambda shapes: tuple(shapes[0])


Names = dict[str, Entry]

RESBLOCK = {
    "GroupNorm_0": "norm1",
    "Conv_0": "conv1",
    "Dense_0": "time",
    "GroupNorm_1": "norm2",
    "Conv_1": "conv2",
    "Conv_2": "shortcut",
}
NIN = {"NIN_0": "query", "NIN_1": "key", "NIN_2": "value", "NIN_3": "out"}


def score_sde_names(net: DDPMpp) -> Names:
    """Names of Score SDE's NCSN++ class: `all_modules.n`, numbered in the order of the forward pass, as ours are."""
    inner = [name for name, module in net.named_modules() if isinstance(module, ResBlock | Attention)]
    names: Names = {}
    for number, name in enumerate(["time.0", "time.2", "conv_in", *inner, "norm_out", "conv_out"]):
        module, prefix = net.get_submodule(name), f"all_modules.{number}"
        if isinstance(module, ResBlock):
            for theirs, ours in RESBLOCK.items():
                if not isinstance(module.get_submodule(ours), nn.Identity):
                    _plain(names, f"{prefix}.{theirs}", f"{name}.{ours}")
        elif isinstance(module, Attention):
            _plain(names, f"{prefix}.GroupNorm_0", f"{name}.norm")
            for theirs, ours in NIN.items():
                names[f"{prefix}.{theirs}.W"] = Entry(
                    (f"{name}.{ours}.weight",), _transposed, lambda shapes: tuple(shapes[0])[::-1]
                )
                names[f"{prefix}.{theirs}.b"] = Entry((f"{name}.{ours}.bias",))
        else:
            _plain(names, prefix, name)
    return names


EDM_BLOCK = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "time",
    "norm1": "norm2",
    "conv1": "conv2",
    "skip": "shortcut",
}


def edm_names(net: DDPMpp) -> Names:
    """Names of EDM's SongUNet with DDPM++'s options, whose blocks hold their attention and are called by level."""
    names: Names = {}
    for theirs, ours in {"map_layer0": "time.0", "map_layer1": "time.2"}.items():
        _plain(names, theirs, ours)
    inner = [name for name, module in net.named_modules() if isinstance(module, ResBlock | Attention)]
    blocks = iter(_edm_blocks(net.options))
    _plain(names, next(blocks), "conv_in")
    prefix = ""
    for name in inner:
        module = net.get_submodule(name)
        if isinstance(module, Attention):
            _edm_attention(names, prefix, name)
            continue
        prefix = next(blocks)
        for theirs, ours in EDM_BLOCK.items():
            if not isinstance(module.get_submodule(ours), nn.Identity):
                _plain(names, f"{prefix}.{theirs}", f"{name}.{ours}")
    finest = net.options["image_size"]
    _plain(names, f"dec.{finest}x{finest}_aux_norm", "norm_out")
    _plain(names, f"dec.{finest}x{finest}_aux_conv", "conv_out")
    return names


def _edm_blocks(options: dict[str, Any]) -> list[str]:
    """EDM's names of the first convolution and of every block, in the order of the forward pass."""
    blocks, levels = options["num_res_blocks"], len(options["ch_mult"])
    sides = [options["image_size"] >> level for level in range(levels)]
    found = [f"enc.{sides[0]}x{sides[0]}_conv"]
    for level, side in enumerate(sides):
        found += [f"enc.{side}x{side}_down"] if level else []
        found += [f"enc.{side}x{side}_block{k}" for k in range(blocks)]
    for level, side in reversed(list(enumerate(sides))):
        found += [f"dec.{side}x{side}_up"] if level < levels - 1 else [f"dec.{side}x{side}_in{k}" for k in (0, 1)]
        found += [f"dec.{side}x{side}_block{k}" for k in range(blocks + 1)]
    return found


def _edm_attention(names: Names, prefix: str, name: str) -> None:
    """One head, as 1x1 convolutions; rows of qkv are ordered (channel, {q, k, v})."""
    _plain(names, f"{prefix}.norm2", f"{name}.norm")

    def split(tensor: Tensor, parts: int) -> Sequence[Tensor]:
        rows = tensor.reshape(-1, 3, *tensor.shape[1:]).unbind(1)
        return [row.reshape(row.shape[0], -1) if tensor.dim() > 1 else row for row in rows]

    def flat(tensor: Tensor, parts: int) -> list[Tensor]:
        return [tensor.flatten(1)]

    def joined(shapes: Sequence[Sequence[int]]) -> Shape:
        rows, *columns = shapes[0]
        return (3 * rows, *columns, *((1, 1) if columns else ()))

    for kind in ("weight", "bias"):
        targets = tuple(f"{name}.{part}.{kind}" for part in ("query", "key", "value"))
        names[f"{prefix}.qkv.{kind}"] = Entry(targets, split, joined)
    names[f"{prefix}.proj.weight"] = Entry((f"{name}.out.weight",), flat, lambda shapes: (*shapes[0], 1, 1))
    names[f"{prefix}.proj.bias"] = Entry((f"{name}.out.bias",))


RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def adm_names(net: Any) -> Names:
    """Names of guided-diffusion's UNetModel with the attention order of its releases (`QKVAttentionLegacy`).

    net is the `UNet2DModel` they go to; see `lgap_bench.prior.convert.ADM_256`.
    """
    names: Names = {}
    for theirs, ours in {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }.items():
        _plain(names, theirs, ours)
    modules = [("middle_block.0", "mid_block.resnets.0"), ("middle_block.2", "mid_block.resnets.1")]
    modules += [("middle_block.1", "mid_block.attentions.0"), *_adm_down(net), *_adm_up(net)]
    for prefix, name in modules:
        if "attentions" in name:
            _adm_attention(names, prefix, name, net.get_submodule(name).heads)
            continue
        for theirs, ours in RESNET.items():
            if getattr(net.get_submodule(name), ours) is not None:
                _plain(names, f"{prefix}.{theirs}", f"{name}.{ours}")
    return names


def _adm_down(net: Any) -> list[tuple[str, str]]:
    """(theirs, ours): blocks are numbered through, a level's downsampling is a block of its own."""
    pairs, number = [], 1
    for i, level in enumerate(net.down_blocks):
        for j in range(len(level.resnets)):
            pairs.append((f"input_blocks.{number}.0", f"down_blocks.{i}.resnets.{j}"))
            if hasattr(level, "attentions"):
                pairs.append((f"input_blocks.{number}.1", f"down_blocks.{i}.attentions.{j}"))
            number += 1
        if level.downsamplers is not None:
            pairs.append((f"input_blocks.{number}.0", f"down_blocks.{i}.downsamplers.0"))
            number += 1
    return pairs


def _adm_up(net: Any) -> list[tuple[str, str]]:
    """(theirs, ours): here the upsampling is the last part of a level's last block."""
    pairs, number = [], 0
    for i, level in enumerate(net.up_blocks):
        attends = hasattr(level, "attentions")
        for j in range(len(level.resnets)):
            pairs.append((f"output_blocks.{number}.0", f"up_blocks.{i}.resnets.{j}"))
            if attends:
                pairs.append((f"output_blocks.{number}.1", f"up_blocks.{i}.attentions.{j}"))
            number += 1
        if level.upsamplers is not None:
            pairs.append((f"output_blocks.{number - 1}.{1 + attends}", f"up_blocks.{i}.upsamplers.0"))
    return pairs


def _adm_attention(names: Names, prefix: str, name: str, heads: int) -> None:
    def per_head(tensor: Tensor, parts: int) -> list[Tensor]:
        # Rows are ordered (head, {query, key, value}, channel): cutting them in three loads and is wrong.
        tensor = tensor.flatten(1) if tensor.dim() > 1 else tensor
        split = tensor.reshape(heads, parts, -1, *tensor.shape[1:]).unbind(1)
        return [part.flatten(0, 1) for part in split]

    parts = ("to_q", "to_k", "to_v")
    _plain(names, f"{prefix}.norm", f"{name}.group_norm")
    names[f"{prefix}.qkv.weight"] = Entry(
        tuple(f"{name}.{part}.weight" for part in parts), per_head, lambda shapes: (3 * shapes[0][0], shapes[0][1], 1)
    )
    names[f"{prefix}.qkv.bias"] = Entry(
        tuple(f"{name}.{part}.bias" for part in parts), per_head, lambda shapes: (3 * shapes[0][0],)
    )
    names[f"{prefix}.proj_out.weight"] = Entry((f"{name}.to_out.0.weight",), _flat, lambda shapes: (*shapes[0], 1))
    names[f"{prefix}.proj_out.bias"] = Entry((f"{name}.to_out.0.bias",))


def _plain(names: Names, theirs: str, ours: str) -> None:
    for leaf in ("weight", "bias"):
        names[f"{theirs}.{leaf}"] = Entry((f"{ours}.{leaf}",))
