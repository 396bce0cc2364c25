"""What a cell's captions did: the measure that a defense with a captioner brings to a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgap_bench.metric.caption import Synonyms, bleu, names_label, reached, rouge_l

Columns = dict[str, NDArray[Any]]
LIKENESS = {"bleu": bleu, "rouge": rouge_l}
# Means over samples in the summary: percent, but for CLIP's score, which keeps its paper's scale.
MEANS = {
    "attacked_caption_bleu": 100,
    "attacked_caption_rouge": 100,
    "attacked_caption_target": 100,
    "clean_caption_clip": 1,
    "attacked_caption_clip": 1,
    "clean_caption_cut": 100,
    "attacked_caption_cut": 100,
}


@dataclass(frozen=True)
class Captions:
    """Do captions stay faithful? Label words, BLEU and ROUGE-L, a CLIP score, and whether a targeted attack got its way.

    Args:
        classes, synonyms, unrelated: the data set's words, see `DataSet`.
        clip: `metric.clip.ClipScore`, or None for no score.
        cut: says which captions are longer than the purifier's text encoder takes; None where nothing reads them.
        words: the sentences in what a purifier observed; None where that is nothing else.
    """

    classes: Sequence[str]
    synonyms: Synonyms
    unrelated: str | None
    clip: Any = None
    cut: Callable[[Sequence[str]], Sequence[bool]] | None = None
    words: Callable[[Sequence[str]], Sequence[str]] | None = None

    @torch.no_grad()
    def columns(self, x: Tensor, labels: Sequence[int], observed: Mapping[str, Any], published: Columns) -> Columns:
        """One value per sample.

        Args:
            x: clean images (B, C, H, W) in [0, 1]; CLIP scores are against them on both sides: what a caption says of the
                true content.
            observed: `clean` and `attacked`: the captions, or None where the defense has none: then there is nothing.
            published: what the attack added; `caption_target_label` is the class that it aimed at.
        """
        if observed["clean"] is None:
            return {}
        if self.words is not None:
            observed = {name: self.words(texts) for name, texts in observed.items()}
        found: Columns = {}
        for name, captions in observed.items():
            named = [names_label(c, k, self.classes, self.synonyms) for c, k in zip(captions, labels, strict=True)]
            found[f"{name}_caption"] = np.asarray(captions)
            found[f"{name}_caption_label"] = np.asarray(named)
            if self.cut is not None:
                found[f"{name}_caption_cut"] = np.asarray(self.cut(captions))
        clean, attacked = observed["clean"], observed["attacked"]
        pairs = list(zip(attacked, clean, strict=True))
        found |= {f"attacked_caption_{name}": np.asarray([f(*p) for p in pairs]) for name, f in LIKENESS.items()}
        if self.clip is not None:
            for name, captions in observed.items():
                found[f"{name}_caption_clip"] = self.clip(x, captions).double().cpu().numpy()
        if "caption_target_label" in published:
            aims = published["caption_target_label"].tolist()
            words = (self.classes, self.synonyms, self.unrelated)
            hits = [reached(c, k, *words) for c, k in zip(attacked, aims, strict=True)]
            found["attacked_caption_target"] = np.asarray(hits)
        return found

    def summary(self, chunks: Sequence[Columns], kept: NDArray[np.bool_]) -> dict[str, Any]:
        """Means over the samples; those of attacked captions over the `kept` ones, whose attack did not fail."""
        found: dict[str, Any] = {}
        for name in ("clean", "attacked"):
            if f"{name}_caption_label" in chunks[0]:
                named = np.concatenate([chunk[f"{name}_caption_label"] for chunk in chunks])
                chosen = kept if name == "attacked" else np.ones_like(kept)
                found[f"caption_label_{name}"] = 100 * float(named[chosen].mean()) if chosen.any() else None
        for column, scale in MEANS.items():
            if kept.any() and all(column in chunk for chunk in chunks):
                values = np.concatenate([chunk[column] for chunk in chunks])
                found[column] = scale * float(values[kept if column.startswith("attacked") else slice(None)].mean())
        return found
