"""The task `multi_label`: several classes per image, right when the class of largest logit is one of them.

An attack meets such an image as one with a single label: of the logits of the classes that are in it the largest stands
for all of them (`merged`), so that every attack and library, which know one label, attack what is scored here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lgap_bench.task.single_label import SingleLabel

if TYPE_CHECKING:
    from torch import Tensor

BELOW = 1e4  # how far below the smallest logit the other classes in the image are put, where no loss sees them


@dataclass(frozen=True)
class MultiLabel(SingleLabel):
    """Labels (B, classes), bool. What a record keeps in addition: the score of every class, per draw."""

    def columns(self, name: str, logits: Tensor, labels: Tensor) -> dict[str, NDArray[Any]]:
        """Of logits (draws, B, classes): the top class, whether it is in the image, the margin to it, all scores."""
        import torch

        from lgap_bench.task import loss

        one = first(labels)
        margins = torch.stack([-loss.margin(merged(each, labels), one) for each in logits])
        top = logits.argmax(-1)
        return {
            f"{name}_prediction": top.cpu().numpy(),
            f"{name}_right": labels.expand_as(logits).gather(-1, top[..., None]).squeeze(-1).cpu().numpy(),
            f"{name}_margin": margins.double().cpu().numpy(),
            f"{name}_scores": logits.float().cpu().numpy(),
        }

    def bare(self, name: str, logits: Tensor, labels: Tensor) -> dict[str, NDArray[Any]]:
        """Of the bare classifier's logits (B, classes): as `columns`, without draws and margin; scores (classes, B)."""
        top = logits.argmax(-1)
        return {
            f"{name}_undefended": top.cpu().numpy(),
            f"{name}_undefended_right": labels.gather(1, top[:, None]).squeeze(1).cpu().numpy(),
            f"{name}_undefended_scores": logits.T.float().cpu().numpy(),
        }


def first(labels: Tensor) -> Tensor:
    """The class that stands for all of an image's, (B,): its first."""
    return labels.int().argmax(1)


def merged(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (..., B, classes) of one class per image, `first`: the largest of its classes; the others lie far below all.

    So `argmax` is `first` exactly where the top class is in the image, and margins are those to the best of its classes.
    Differentiable.
    """
    import torch

    labels = labels.expand_as(logits)
    best = logits.masked_fill(~labels, -torch.inf).amax(-1, keepdim=True)
    low = logits.detach().amin(-1, keepdim=True) - BELOW
    place = torch.zeros_like(labels).scatter(-1, labels.int().argmax(-1, keepdim=True), True)
    return torch.where(place, best, torch.where(labels, low, logits))


MULTI_LABEL = MultiLabel()
