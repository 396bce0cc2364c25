"""PyTorch checkpoint files of others: read without running their code, and told for what they are where they cannot be."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lgap_bench.runtime import header

# What published checkpoints keep beside their tensors, harmless all of it: the training's arguments and its best accuracy
# as a numpy number (under the name of numpy 1 too).
_SCALAR = np.float64(0).__reduce__()[0]  # what a numpy number is pickled as
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]
NESTED = "state_dict"  # where training scripts keep the tensors beside their other things


def read(file: str, key: str = "classifier.file", device: str = "cpu") -> Mapping[str, Any]:
    """What a .pt or .pth file holds, on the CPU, or on `meta` without its numbers. Raises ValueError that names the file and what it is otherwise."""
    path = Path(file).expanduser()
    try:
        with torch.serialization.safe_globals(HARMLESS):
            held = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"{key}={file} is {_told(path, error)}: download it again") from None
    if not isinstance(held, Mapping):
        raise ValueError(f"{key}={file} holds {_named(held)} and no state dictionary: give the one of this model")
    return held


def state_dict(file: str, kind: str, key: str = "classifier.file") -> dict[str, Tensor]:
    """The tensors of a file that holds a state dictionary, bare or under `state_dict` beside other things."""
    held = read(file, key)
    inner = held[NESTED] if isinstance(held.get(NESTED), Mapping) else held
    strange = [name for name, value in inner.items() if not isinstance(value, Tensor)]
    if strange or not inner:
        holds = f"{', '.join(str(name) for name in list(inner)[:4])}" if inner else "nothing"
        raise ValueError(f"{key}={file} holds {holds} and no state dictionary of a {kind}: give that")
    return {str(name): value for name, value in inner.items()}


def fill(module: nn.Module, tensors: Mapping[str, Tensor], file: str, kind: str, key: str = "classifier.file") -> None:
    """Load exactly these tensors. Raises ValueError naming the first that is missing, unknown or of another shape."""
    own = module.state_dict()
    wrong = [f"lacks {name}" for name in own if name not in tensors]
    wrong += [f"has {name}, which that has not" for name in tensors if name not in own]
    wrong += [
        f"has {name} of shape {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if wrong:
        raise ValueError(
            f"{key}={file} is no {kind} (it {wrong[0]}, {len(wrong)} such tensors): give its own state dictionary"
        )
    module.load_state_dict(dict(tensors))


def _told(path: Path, error: BaseException) -> str:
    """What a file is that cannot be read."""
    if not path.is_file():
        return "not there"
    if not path.stat().st_size:
        return "empty"
    if (what := header.other(path)) is not None:
        return what
    with path.open("rb") as stream:
        archive = stream.read(2) == b"PK"
    if archive and not zipfile.is_zipfile(path):
        return "cut off"
    if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
        return "a pickle that asks for code to be run when it is read, which is not done"
    return f"no PyTorch checkpoint ({type(error).__name__})"


def _named(held: Any) -> str:
    if isinstance(held, Tensor):
        return f"a bare tensor of shape {tuple(held.shape)}"
    if isinstance(held, (list, tuple)):
        return f"a {type(held).__name__} of {len(held)} entries"
    return f"a {type(held).__name__}"
