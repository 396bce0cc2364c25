"""What every loader makes sure of: all tensors are there, none holds NaN or infinity, and words are the encoder's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lgap_bench.runtime import frugal


def require_finite(module: nn.Module, weights: str) -> None:
    """Raise ValueError naming the first tensor that holds NaN or infinity: such a model's numbers mean nothing."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() and not all(map(_finite, torch.aminmax(tensor))):
            raise ValueError(f"weights={weights}: {name} holds NaN or infinity: train or download them again")


def _finite(extreme: torch.Tensor) -> bool:
    """Whether the smallest or largest value is a finite number: both are NaN where any is, and nothing has to be copied."""
    return bool(torch.isfinite(extreme))


def pretrained(kind: Any, folder: Path, weights: str) -> Any:
    """`kind.from_pretrained(folder)` that refuses missing tensors, which the libraries fill with random numbers."""
    if kind.__module__.startswith("diffusers."):
        from diffusers.utils import logging  # loaded by now, and not before: it takes seconds

        logging.disable_progress_bar()
    try:
        if kind.__module__.startswith("diffusers.") and (whole := frugal.load(kind, folder)) is not None:
            return whole
        model, info = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    except (OSError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"weights={weights}: {folder} is no {kind.__name__} ({error}): copy or download it again"
        ) from None
    lacking = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if lacking:
        raise ValueError(
            f"weights={weights}: {folder} lacks {len(lacking)} tensors of {kind.__name__}, the first is {lacking[0]}: "
            "copy or download it again"
        )
    return model


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
