"""A defense: purifier and classifier as one module from images in [0, 1] to logits.

It is a plain module too: called without noise it draws its own, so attack libraries and others' code take it as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lgap_bench.noise import Noise, fresh
from lgap_bench.purifier.base import Purifier


class Defense(nn.Module):
    """classifier(purifier(x)); weights frozen and in eval mode, so that gradients cost only what the input needs.

    A classifier that draws says so by an attribute `randomized`, and its `forward(x, noise)` takes one noise key per row.
    """

    def __init__(self, purifier: Purifier, classifier: nn.Module) -> None:
        super().__init__()
        self.purifier, self.classifier = purifier, classifier
        self.eval().requires_grad_(False)

    @property
    def randomized(self) -> bool:
        """Whether two calls with different noise may differ."""
        return self.purifier.randomized or self.classifier_draws

    @property
    def classifier_draws(self) -> bool:
        """Whether the classifier alone is randomized."""
        return bool(getattr(self.classifier, "randomized", False))

    def observe(self, x: Tensor, noise: Noise) -> list[str] | None:
        """What the purifier reads off x without gradient (LGAP: captions), one entry per row."""
        with torch.no_grad():
            return self.purifier.observe(self.as_model_input(x.detach()), noise)

    def purify(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        """Purified images, in the dtype of x whatever the models compute in; differentiable in x."""
        return self.purifier(self.as_model_input(x), noise, observed).to(x.dtype)

    def classify(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """Logits (B, classes) of the bare classifier, in the dtype of x; differentiable in x.

        A randomized one without noise takes the same draw for every image.
        """
        given = x.to(self.classifiers_dtype(x))
        logits: Tensor = self.classifier(given, noise) if self.classifier_draws else self.classifier(given)
        return logits.to(x.dtype)

    def forward(self, x: Tensor, noise: Noise | None = None, observed: list[str] | None = None) -> Tensor:
        """Logits (B, classes) of the purified images; differentiable in x.

        Without noise every call draws anew, from torch's global generator, which `torch.manual_seed` sets.
        """
        drawn = fresh(len(x)) if noise is None else noise
        return self.classify(self.purify(x, drawn, observed), drawn)

    def as_model_input(self, x: Tensor) -> Tensor:
        """Images in the dtype in which purifier and captioner get them: wide enough for x and for the models.

        Neighbouring pixel values are up to 1/256 apart in bfloat16, which would round small perturbations away. So images
        stay as they are, and each part casts what it feeds to its own network.
        """
        return x.to(torch.promote_types(x.dtype, self._models(x)))

    def classifiers_dtype(self, x: Tensor) -> torch.dtype:
        """What the classifier computes in: where the diffusion model alone is in half precision, not what that does."""
        return next((p.dtype for p in self.classifier.parameters()), self._models(x))

    def _models(self, x: Tensor) -> torch.dtype:
        return next((p.dtype for p in self.parameters()), x.dtype)


def passes(rows: int, most: int) -> list[tuple[int, int]]:
    """[0, rows) in pieces of at most `most`: how many images times draws go through a defense at once."""
    return [(start, min(start + most, rows)) for start in range(0, rows, most)]
