"""What a detector is: an image -> what is where in it, as words, boxes and one mask; and both as one line of text."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lgap_bench.noise import Noise

SEPARATOR = "\x1f"  # ASCII's unit separator: no sentence has it, and JSON keeps it


@dataclass(frozen=True)
class Found:
    """What was found in one image, by falling score.

    Attributes:
        labels: a class word per box; none of a detector that names nothing.
        scores: (m,), in [0, 1].
        boxes: (m, 4), left, top, right, bottom as shares of width and height, in [0, 1].
        mask: (H, W) bool at the image's size: the union of what was found, dilated. Nothing found: all false.
    """

    labels: tuple[str, ...]
    scores: Tensor
    boxes: Tensor
    mask: Tensor

    @property
    def words(self) -> tuple[str, ...]:
        """The classes that were found, each once."""
        return tuple(dict.fromkeys(self.labels))


class Detector(nn.Module):
    """Base class: subclasses write `find`, and `presence` if they can be attacked.

    Attributes:
        names: the labels that it can say; empty if it names nothing.
        by_image: whether what it finds follows from the image alone, no draw and no sample id.
        attackable: whether it has a `presence` whose gradient leads anywhere.
    """

    names: tuple[str, ...] = ()
    by_image: bool = True
    attackable: bool = False

    @torch.no_grad()
    def forward(self, x: Tensor, noise: Noise | None = None) -> list[Found]:
        """What is in images (B, 3, H, W) in [0, 1], one `Found` each, without gradient."""
        return self.find(x, noise)

    def find(self, x: Tensor, noise: Noise | None) -> list[Found]:
        """`forward` of a subclass."""
        raise NotImplementedError

    def presence(self, x: Tensor) -> Tensor:
        """How much there is to be found, (B,), differentiable in x: who lowers it makes boxes vanish.

        Raises ValueError if the detector has none.
        """
        raise ValueError(
            f"detector: {type(self).__name__} has no presence that an attack could lower: use detr, rt_detr, yolos or superpoint"
        )


def require_names(detector: Detector, classes: Sequence[str], part: str = "detector") -> None:
    """Raise ValueError if a detector that names things cannot say a class of the data set.

    It may say others: what it sees is there, whether or not the data set asks about it.
    """
    lacking = [word for word in classes if word not in detector.names]
    if detector.names and lacking:
        more = f" and {len(lacking) - 1} more of {len(classes)}" if len(lacking) > 1 else ""
        other = [word for word in detector.names if word not in classes]
        instead = f"; it says {', '.join(other[:3])}" if other else ""
        raise ValueError(
            f"{part}: its labels are not the data set's: {lacking[0]}{more} is none of them{instead}: choose weights trained on that data set, or set rename"
        )


def encode(sentence: str, mask: Tensor) -> str:
    """A sentence and a mask (H, W), bool, as one text: what a purifier observes of an image is a text."""
    if SEPARATOR in sentence:
        raise ValueError(
            f"sentence {sentence!r} holds the character {SEPARATOR!r}, which separates it from a mask: take it out"
        )
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype} of shape {tuple(mask.shape)}: give one (H, W) of bool")
    bits = np.packbits(mask.cpu().numpy(), axis=None).tobytes()
    data = base64.b64encode(zlib.compress(bits, 9)).decode("ascii")
    return f"{sentence}{SEPARATOR}{mask.shape[0]}x{mask.shape[1]}:{data}"


def decode(text: str) -> tuple[str, Tensor]:
    """The sentence and the mask (H, W), on the CPU, of a text that `encode` made. Raises ValueError for any other."""
    sentence, separator, rest = text.partition(SEPARATOR)
    shape, _, data = rest.partition(":")
    try:
        height, width = (int(side) for side in shape.split("x"))
        packed = np.frombuffer(zlib.decompress(base64.b64decode(data, validate=True)), dtype=np.uint8)
        if not separator or min(height, width) < 1 or len(packed) != -(-height * width // 8):
            raise ValueError("not as many bits as pixels")
    except (ValueError, binascii.Error, zlib.error) as error:
        raise ValueError(
            f"observed text {text[:40]!r} holds no whole mask ({error}): delete the record's unfinished part and measure it again"
        ) from None
    bits = np.unpackbits(packed, count=height * width).astype(bool)
    return sentence, torch.from_numpy(bits.reshape(height, width))


def words_of(text: str) -> str:
    """The sentence alone; a text without a mask as it is."""
    return text.partition(SEPARATOR)[0]
