"""The prompt of what a detector found: the sentence that captions a scene (`dataset.words`, which lies below)."""

from __future__ import annotations

from lgap_bench.dataset.words import sentence

__all__ = ["sentence"]
