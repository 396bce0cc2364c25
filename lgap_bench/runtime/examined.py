"""Whether files of weights fit their architecture, by their headers alone: what a loader would refuse, without its seconds and memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lgap_bench.runtime import header
from lgap_bench.runtime.pretrained import form, require_whole

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
           "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}  # fmt: skip


def examine(kind: Any, folder: Path, weights: str) -> None:
    """Raise ValueError if `pretrained(kind, folder, weights)` would: a tensor that is missing or of another shape, a bad config."""
    held = shapes(folder, weights)
    try:
        missing, mismatched = (_diffusers if hasattr(kind, "from_config") else _transformers)(kind, folder, held)
    except (OSError, TypeError, RuntimeError, ValueError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"weights={weights}: {folder} is no {kind.__name__} ({reason}): copy or download it again"
        ) from None
    require_whole(kind, folder, weights, missing, mismatched)


def shapes(folder: Path, weights: str) -> dict[str, Tensor]:
    """Every tensor of the form that is read, without its numbers: one zero, seen at its shape, takes no memory."""
    held: dict[str, Tensor] = {}
    for file in _files(folder, weights):
        if file.suffix == ".bin":
            # Mapped to no device: only the list of tensors is read.
            held |= torch.load(file, map_location="meta", weights_only=True)
            continue
        try:
            entries = header.read(file)
        except (ValueError, OSError) as error:
            raise ValueError(f"weights={weights}: {file} is damaged ({error}): copy or download it again") from None
        held |= {name: _zero(entry.dtype).expand(entry.shape) for name, entry in entries.items()}
    return {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in held.items()}


def _zero(dtype: str) -> Tensor:
    return torch.zeros((), dtype=_DTYPES.get(dtype, torch.float32))


def _files(folder: Path, weights: str) -> Iterator[Path]:
    """The files of that form; of shards those that the index names, each of which has to be there."""
    asked = form(folder)
    ending, variant = ("safetensors" if asked["use_safetensors"] else "bin"), asked["variant"]
    middle = f".{variant}" if variant else ""
    name = re.compile(rf"(?:model|diffusion_pytorch_model|pytorch_model){re.escape(middle)}(-\d+-of-\d+)?\.{ending}")
    found = sorted(file for file in folder.glob("*") if name.fullmatch(file.name))
    shards = [file for file in found if "-of-" in file.name]
    indices = [file for file in folder.glob("*.index*.json") if bool(variant) == (f".{variant}." in file.name)]
    if shards and indices:
        named = sorted(set(json.loads(indices[0].read_text())["weight_map"].values()))
        lacking = [each for each in named if not (folder / each).exists()]
        if lacking:
            raise ValueError(
                f"weights={weights}: no {lacking[0]} in {folder}, which {indices[0].name} names: copy or download it again"
            )
        found = [folder / each for each in named]
    yield from found


Found = tuple[list[str], list[str]]


def _transformers(kind: Any, folder: Path, held: Mapping[str, Tensor]) -> Found:
    """By transformers' own loading, with its renaming of older names."""
    config = kind.config_class.from_pretrained(folder, local_files_only=True)
    with _silent():
        _, info = kind.from_pretrained(
            None, config=config, state_dict=dict(held), output_loading_info=True, ignore_mismatched_sizes=True
        )
    return sorted(info["missing_keys"]), sorted(str(each[0]) for each in info["mismatched_keys"])


def _diffusers(kind: Any, folder: Path, held: Mapping[str, Tensor]) -> Found:
    """By the names of an empty network; diffusers renames older ones in the dictionary."""
    with torch.device("meta"):
        empty = kind.from_config(kind.load_config(folder, local_files_only=True))
    held = dict(held)
    empty._fix_state_dict_keys_on_load(held)
    own = empty.state_dict()
    wrong = [name for name in own if name in held and held[name].shape != own[name].shape]
    return [name for name in own if name not in held], wrong


@contextmanager
def _silent() -> Iterator[None]:
    """transformers' own report and progress bar are for loads that are meant."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
