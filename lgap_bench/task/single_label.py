"""The task `single_label`: one class per image, right when its logit is the largest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a report asks what was right and should not wait seconds for torch; the methods import it
    from torch import Tensor


@dataclass(frozen=True)
class SingleLabel:
    """What a label is, what counts as right, what an attacker raises by default, and what is kept of a sample.

    A data set says which task it asks; the loop, the attacks' choices and the tables ask the task.
    """

    def right(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Whether each row of logits (..., B, classes) answers its label (B,), bool (..., B)."""
        return logits.argmax(-1) == labels

    def margin(self, logits: Tensor, labels: Tensor) -> Tensor:
        """By how much the answer is wrong, (B,): largest other logit minus the label's; above 0 is wrong."""
        from lgap_bench.task import loss

        return loss.margin(logits, labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What an attacker raises who has no better idea, (B,): the cross-entropy."""
        from lgap_bench.task import loss

        return loss.cross_entropy(logits, labels)

    def columns(self, name: str, logits: Tensor, labels: Tensor) -> dict[str, NDArray[Any]]:
        """What a record keeps of logits (draws, B, classes): predictions, and margins that are positive where right."""
        import torch

        margins = torch.stack([-self.margin(each, labels) for each in logits])
        return {
            f"{name}_prediction": logits.argmax(-1).cpu().numpy(),
            f"{name}_margin": margins.double().cpu().numpy(),
        }

    def bare(self, name: str, logits: Tensor, labels: Tensor) -> dict[str, NDArray[Any]]:
        """What a record keeps of the bare classifier's logits (B, classes): its predictions."""
        return {f"{name}_undefended": logits.argmax(-1).cpu().numpy()}

    def correct(self, columns: Mapping[str, Any], name: str) -> NDArray[np.bool_]:
        """From a record's columns whether each draw was right: (B, draws) of samples, (draws, B) of a chunk.

        A task that label and prediction do not decide keeps it in a column of its own.
        """
        if f"{name}_right" in columns:
            return np.asarray(columns[f"{name}_right"], bool)
        guesses, labels = np.asarray(columns[f"{name}_prediction"]), np.asarray(columns["label"])
        return guesses == labels if isinstance(columns["label"], np.ndarray) else guesses == labels[:, None]

    def bare_correct(self, columns: Mapping[str, Any], name: str) -> NDArray[np.bool_]:
        """From a record's columns whether the bare classifier was right, (B,)."""
        kept = columns.get(f"{name}_undefended_right")
        guesses, labels = np.asarray(columns[f"{name}_undefended"]), np.asarray(columns["label"])
        return guesses == labels if kept is None else np.asarray(kept, bool)


SINGLE_LABEL = SingleLabel()
