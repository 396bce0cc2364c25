"""What every loader makes sure of: all tensors are there, none holds NaN or infinity, and words are the encoder's own."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lgap_bench.runtime import frugal

MARK = "outline.safetensors"  # an empty file in place of a model's tensors: of that model only the shapes are known


def outlined(folder: Path) -> bool:
    """Whether a folder holds a model's config alone, so that it can be built on torch's `meta` device only."""
    return (folder / MARK).is_file()


def require_finite(module: nn.Module, weights: str) -> None:
    """Raise ValueError naming the first tensor that holds NaN or infinity: such a model's numbers mean nothing."""
    for name, tensor in module.state_dict().items():
        if tensor.is_meta:  # shapes without numbers
            continue
        if tensor.is_floating_point() and tensor.numel() and not all(map(_finite, torch.aminmax(tensor))):
            raise ValueError(f"weights={weights}: {name} holds NaN or infinity: train or download them again")


def _finite(extreme: torch.Tensor) -> bool:
    """Whether the smallest or largest value is a finite number: both are NaN where any is, and nothing has to be copied."""
    return bool(torch.isfinite(extreme))


# `model.safetensors`, `diffusion_pytorch_model.fp16.safetensors`, `model-00001-of-00003.safetensors`, `pytorch_model.bin`
_TENSORS = re.compile(
    r"(?:model|diffusion_pytorch_model|pytorch_model)(?:\.(fp16|bf16))?(?:-\d+-of-\d+)?\.(safetensors|bin)"
)


def form(folder: Path) -> dict[str, Any]:
    """How the libraries are asked for the tensors that a folder has: whole ones first, then half ones, `.bin` last.

    A `.bin` file is read by torch's safe loader alone, which builds tensors and runs nothing. Files elsewhere are not asked for.
    """
    held = {match.groups() for file in folder.glob("*") if (match := _TENSORS.fullmatch(file.name))}
    for kind in ("safetensors", "bin"):
        for variant in (None, "fp16", "bf16"):
            if (variant, kind) in held:
                return {"use_safetensors": kind == "safetensors", "variant": variant, "local_files_only": True}
    return {"use_safetensors": True, "variant": None, "local_files_only": True}


def pretrained(kind: Any, folder: Path, weights: str) -> Any:
    """`kind.from_pretrained(folder)` that refuses missing tensors, which the libraries fill with random numbers."""
    if outlined(folder):
        with torch.device("meta"):
            if kind.__module__.startswith("diffusers."):
                return kind.from_config(kind.load_config(folder)).eval()
            return kind(kind.config_class.from_pretrained(folder)).eval()
    if kind.__module__.startswith("diffusers."):
        from diffusers.utils import logging  # loaded by now, and not before: it takes seconds

        logging.disable_progress_bar()
    try:
        if kind.__module__.startswith("diffusers.") and (whole := frugal.load(kind, folder)) is not None:
            return whole
        model, info = kind.from_pretrained(folder, **form(folder), output_loading_info=True)
    except (OSError, TypeError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"weights={weights}: {folder} is no {kind.__name__} ({_told(error)}): copy or download it again"
        ) from None
    require_whole(
        kind, folder, weights, sorted(info["missing_keys"]), sorted(str(key) for key in info["mismatched_keys"])
    )
    return model


def require_whole(kind: Any, folder: Path, weights: str, missing: list[str], mismatched: list[str]) -> None:
    """Raise ValueError naming the first tensor that a model's files lack, or have in another shape."""
    lacking = [*missing, *mismatched]
    if lacking:
        raise ValueError(
            f"weights={weights}: {folder} lacks {len(lacking)} tensors of {kind.__name__}, the first is {lacking[0]}"
            f"{'' if missing else ', which has another shape there'}: copy or download it again"
        )


def _told(error: BaseException) -> str:
    """What a library says, in one line; torch's advice to load a pickle unsafely is left out."""
    hidden = "weights_only" in str(error) or "Unable to load weights from checkpoint" in str(error)
    if hidden or isinstance(error, pickle.UnpicklingError):
        return "it asks for code to be run when it is read, which is not done, or is no file of tensors"
    return " ".join(str(error).split())


def require_vocabulary(tokenizer: Any, size: int, weights: str, lacking: int = 0) -> None:
    """Raise ValueError if a tokenizer does not hold a text model's `size` words.

    transformers builds one from its special tokens alone where the vocabulary file is missing, and every caption then
    reads as unknown words. `lacking`: special tokens that the tokenizer may do without.
    """
    held = len(tokenizer)
    if not size - lacking <= held <= size:
        raise ValueError(
            f"weights={weights}: its tokenizer knows {held} words and its text model {size}: copy tokenizer.json "
            "(or vocab.json and merges.txt, or vocab.txt) of the same model there"
        )


def caption_length(tokenizer: Any, config: Any) -> int:
    """Tokens that a text model takes of a caption: the tokenizer's limit, and never more than the model has positions.

    transformers says 1e30 where a tokenizer's folder names no limit.
    """
    return min(int(tokenizer.model_max_length), int(config.max_position_embeddings))
