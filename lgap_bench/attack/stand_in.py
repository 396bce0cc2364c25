"""Views that differentiate another purifier in place of the defense's own, and how far such a gradient is from the exact."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lgap_bench.attack.problem import Problem, estimate
from lgap_bench.attack.view import MAX_ROWS, Full, View
from lgap_bench.defense import Defense
from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier
from lgap_bench.task.loss import cross_entropy

PROBED = 4  # images: the exact gradient may be what the attacker of this view could not afford


class StandIn(View):
    """Gradients of a stand-in for the defense. Forward passes by `query`, and so every choice, are the defense itself.

    Args:
        defense: what is attacked, queried and scored.
        purifier: what is differentiated in place of the defense's own purifier, before the same classifier.
    """

    approximate = True

    def __init__(self, defense: Defense, purifier: Purifier, max_rows: int = MAX_ROWS) -> None:
        super().__init__(defense, max_rows)
        self.differentiated = Defense(purifier, defense.classifier)

    def logits(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """Logits of the stand-in, with its exact gradient."""
        return self.differentiated(x, noise, observed)


def agreement(view: View, problem: Problem, draws: int = 1, images: int = PROBED) -> dict[str, float]:
    """How far a view's gradient of the cross-entropy agrees with the exact one, on the problem's first images.

    Both are means over the same `draws` of attack noise that no attack meets. Returns the mean cosine over images and
    the share of equal signs over their pixels, in percent; nothing where a gradient is not finite, which the attack
    itself then records as failed samples, or where memory does not hold the exact one.
    """
    few = problem.take(range(min(images, len(problem.x))))
    noise = few.stream("attack").draws(draws, 0, -2)
    exact = replace(few, view=Full(view.defense, view.max_rows))
    try:
        a, b = (estimate(each, few.x, noise, cross_entropy).gradient.double().flatten(1) for each in (exact, few))
    except (FloatingPointError, torch.OutOfMemoryError):  # the chunk that was attacked before must not be lost
        return {}
    return {
        "gradient_cosine": float(F.cosine_similarity(a, b).mean()),
        "gradient_signs": 100 * float((a.sign() == b.sign()).double().mean()),
    }
