"""Diffusers' models read without a second copy: the empty model first, then each tensor straight from the file.

`from_pretrained` of diffusers fills a model with random numbers, reads the file beside it and copies: twice the weights.
transformers maps the file into memory and needs none of this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FILE = "diffusion_pytorch_model.safetensors"


def load(kind: Any, folder: Path) -> nn.Module | None:
    """A model of diffusers' class `kind` from its folder, in float32; None where only `from_pretrained` will do.

    That is where the file does not hold exactly this model's tensors: in parts, under older names, or damaged. Memory
    never exceeds the weights by more than one tensor, and no page of the file stays mapped: a file that is replaced
    while the model is in use does not change it.
    """
    from safetensors import SafetensorError, safe_open

    file = folder / FILE
    if not file.is_file():
        return None
    with torch.device("meta"):
        model: Any = kind.from_config(kind.load_config(folder))
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with safe_open(file, framework="pt") as held:
            shapes = {name: tuple(held.get_slice(name).get_shape()) for name in held.keys()}  # noqa: SIM118, no mapping
        hidden = {name for name, _ in model.named_buffers()} - wanted.keys()  # made by the constructor, in no file
        if shapes != wanted or hidden:
            return None
        model.load_state_dict({name: _tensor(file, name) for name in wanted}, assign=True)
    except SafetensorError:
        return None
    model.register_to_config(_name_or_path=str(folder))
    return model.eval()


def _tensor(file: Path, name: str) -> Tensor:
    """One tensor in memory of its own, halves as the whole numbers that `from_pretrained` makes of them.

    The file is closed again, since its mapped pages would count as the process's.
    """
    from safetensors import safe_open

    with safe_open(file, framework="pt") as held:
        tensor = held.get_tensor(name)
        return tensor.to(torch.get_default_dtype() if tensor.is_floating_point() else tensor.dtype, copy=True)
