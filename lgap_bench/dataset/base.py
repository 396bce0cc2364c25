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
class Objects:
    """The annotated objects of one image.

    Attributes:
        labels: (m,) int64, index into the data set's `classes`.
        boxes: (m, 4) float32, left, top, right, bottom as shares of width and height, in [0, 1].
        masks: (m, H, W) bool at the image's size, or None where they were not asked for.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class DataSet:
    """Images of one split, in their official order.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1]: a tensor, or files that are read, and checked, when rows are asked for.
        labels: (N,) int64, index into `classes`; where an image has several, its first.
        ids: (N,) int64, the image's index in the whole data set: the key of its noise, the same in every split.
        classes: one word or phrase per label.
        caption: template with one `{label}`, the true caption of an image whose class is known.
        synonyms: class name -> other words or phrases that count as naming it in a caption.
        unrelated: a sentence about none of the classes, for targeted caption attacks.
        task: what a label is and what counts as right.
        present: (N, classes) bool: all classes of each image, where it may have several (task `multi_label`).
        captions: the true caption of each image, where the class alone does not make it.
        objects: what is where in each image, for the data's own statistics; no defense sees it.
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
    present: Tensor | None = None
    captions: Sequence[str] | None = None
    objects: Sequence[Objects] | None = None

    def __post_init__(self) -> None:
        bad = ((self.labels < 0) | (self.labels >= len(self.classes))).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"dataset={self.name}: label {int(self.labels[bad[0]])} of image {int(self.ids[bad[0]])} is not in "
                f"[0, {len(self.classes) - 1}]: mend the label or add its class name to dataset.classes"
            )
        self._check_several()
        twice = sorted({word for word in self.classes if self.classes.count(word) > 1})
        if twice:
            raise ValueError(
                f"dataset.classes: {twice[0]} stands there twice: tell the classes apart, e.g. crane (bird)"
            )
        if "{label}" not in self.caption:
            raise ValueError(f"dataset.caption={self.caption}: it needs the place {{label}} for the class name")
        if isinstance(self.images, Tensor):
            require_range(self.images, f"dataset={self.name}")

    def _check_several(self) -> None:
        """What an image with several classes has to bring: at least one of them, and a caption if any has one."""
        if self.present is not None:
            none = (~self.present.any(1)).nonzero().flatten().tolist()
            if none:
                raise ValueError(
                    f"dataset={self.name}: image {int(self.ids[none[0]])} has no label: leave it out, nothing can be right on it"
                )
        for name in ("captions", "objects"):
            held = getattr(self, name)
            if held is not None and len(held) != len(self.labels):
                raise ValueError(
                    f"dataset={self.name}: {len(held)} {name} for {len(self.labels)} images: give one per image"
                )

    def __len__(self) -> int:
        return len(self.labels)

    def caption_of(self, row: int) -> str:
        """The true caption of an image: its own, or that of its class."""
        return self.true_caption(int(self.labels[row])) if self.captions is None else self.captions[row]

    def true_caption(self, label: int) -> str:
        """The template with the class name: what the captioner should say, and what caption attacks push away from."""
        return self.caption.replace("{label}", self.classes[label])
