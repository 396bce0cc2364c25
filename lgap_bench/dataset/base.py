"""What every data set is to the rest of the project: images in [0, 1] with stable ids, labels and words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from lgap_bench.dataset.images import Images, require_range
from lgap_bench.task.single_label import SINGLE_LABEL, SingleLabel

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class DataSet:
    """Images of one split, in their official order.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1]: a tensor, or files that are read, and checked, when rows are asked for.
        labels: (N,) int64, index into `classes`.
        ids: (N,) int64, the image's index in the whole data set: the key of its noise, the same in every split.
        classes: one word or phrase per label.
        caption: template with one `{label}`, the true caption of an image whose class is known.
        synonyms: class name -> other words or phrases that count as naming it in a caption.
        unrelated: a sentence about none of the classes, for targeted caption attacks.
        task: what a label is and what counts as right.
    """

    name: str
    split: Split
    images: Images
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    caption: str
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unrelated: str | None = None
    task: SingleLabel = SINGLE_LABEL

    def __post_init__(self) -> None:
        bad = ((self.labels < 0) | (self.labels >= len(self.classes))).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"dataset={self.name}: label {int(self.labels[bad[0]])} of image {int(self.ids[bad[0]])} is not in "
                f"[0, {len(self.classes) - 1}]: mend the label or add its class name to dataset.classes"
            )
        twice = sorted({word for word in self.classes if self.classes.count(word) > 1})
        if twice:
            raise ValueError(
                f"dataset.classes: {twice[0]} stands there twice: tell the classes apart, e.g. crane (bird)"
            )
        if "{label}" not in self.caption:
            raise ValueError(f"dataset.caption={self.caption}: it needs the place {{label}} for the class name")
        if isinstance(self.images, Tensor):
            require_range(self.images, f"dataset={self.name}")

    def __len__(self) -> int:
        return len(self.labels)

    def true_caption(self, label: int) -> str:
        """The template with the class name: what the captioner should say, and what caption attacks push away from."""
        return self.caption.replace("{label}", self.classes[label])
