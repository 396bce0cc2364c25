"""Pickles of NVIDIA's research code, which carry the source of their classes for their own loader to execute. None of it runs here.

Only what stands on a list is built: tensors, dictionaries, numbers. An object of a class is kept as data (`Held`); any other
name in the file, at either level of it, is refused.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_CONTAINERS = {("torch.nn.modules.container", name) for name in ("ModuleDict", "ModuleList", "Sequential")}
_SETS = {("builtins", "set"), ("__builtin__", "set")}
_SCALARS = {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}


class Held:
    """An object of the file as data: the name of its class, where the file says it, and its attributes."""

    def __init__(self, meta: Any = None) -> None:
        given = meta if isinstance(meta, dict) else {}
        self.class_name: str = str(given.get("class_name", ""))
        state = given.get("state")
        self.state: dict[str, Any] = dict(state) if isinstance(state, dict) else {}

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state) if isinstance(state, dict) else {}


def read(file: Path) -> Any:
    """What the pickle holds. Raises ValueError in one line, without the file's name, if it is none or asks for anything else."""
    with file.open("rb") as stream:
        try:
            return _Reader(stream).load()
        except Refused as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
            raise ValueError(f"no whole pickle ({type(error).__name__})") from None


def tensors(module: Held, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a held module, as its `state_dict` would list them."""
    for kind in ("_parameters", "_buffers"):
        for name, value in (module.state.get(kind) or {}).items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value.detach()
    for name, child in (module.state.get("_modules") or {}).items():
        if isinstance(child, Held):
            yield from tensors(child, f"{prefix}{name}.")


class Refused(pickle.UnpicklingError):
    """The file asks for something that is not on the list."""


class _Reader(pickle.Unpickler):
    """Every class and function is made for this one reading, so that a file can change none that others use."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Callable[[], Any]] = {
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): lambda: lambda meta: Held(meta),
            ("dnnlib.util", "EasyDict"): lambda: type("EasyDict", (dict,), {}),
            ("collections", "OrderedDict"): lambda: type("Ordered", (OrderedDict,), {}),
            ("torch._utils", "_rebuild_tensor_v2"): lambda: lambda *given: _tensor(*given),
            ("torch._utils", "_rebuild_parameter"): lambda: lambda data, *_: data,
            ("torch.storage", "_load_from_bytes"): lambda: lambda content: _storage(content),
            ("numpy", "dtype"): lambda: type("Type", (Held,), {"__init__": _dtype}),
            **dict.fromkeys(_CONTAINERS, lambda: type("Container", (Held,), {})),
            **dict.fromkeys(_SETS, lambda: type("Set", (set,), {})),
            **dict.fromkeys(_SCALARS, lambda: lambda *given: _scalar(*given)),
        }
        if (module, name) not in known:
            raise Refused(
                f"it asks for {module}.{name}, which is not on the list of what may be built: nothing was run"
            )
        return known[module, name]()

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("it refers to things outside itself")


def _storage(content: Any) -> Any:
    """A storage, by torch's own safe loader: the second level, a pickle within the pickle."""
    try:
        held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is no storage
        raise Refused(
            f"a tensor's content asks for more than numbers ({type(error).__name__}): nothing was run"
        ) from None
    if not isinstance(held, torch.storage.TypedStorage | torch.storage.UntypedStorage):
        raise Refused(f"a tensor's content is a {type(held).__name__}")
    return held


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    return torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())


def _dtype(self: Held, name: Any = "", *_: Any) -> None:
    Held.__init__(self)
    self.class_name = str(name)


def _scalar(kind: Any, content: Any = b"") -> Any:
    """A number of numpy's; never an object."""
    if not isinstance(kind, Held) or kind.class_name.strip("<>=|") not in (
        "f2",
        "f4",
        "f8",
        "i1",
        "i2",
        "i4",
        "i8",
        "u1",
        "b1",
    ):
        raise Refused("it holds a number of an unknown kind")
    return np.frombuffer(content, np.dtype(kind.class_name))[0].item()
