"""No network for this process and those that it starts: the words in which the libraries understand that."""

from __future__ import annotations

import os

_WORDS = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def stay_offline() -> None:
    """Tell every library that may reach for a network. Models are looked up here alone in any case."""
    os.environ.update(_WORDS)
    if os.environ.get("WANDB_MODE", "online") in ("online", "run"):  # disabled stays disabled
        os.environ["WANDB_MODE"] = "offline"


def asked_for(given: bool) -> bool:
    """Whether nothing may be fetched: `offline=true`, or the hub's own HF_HUB_OFFLINE."""
    return given or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
