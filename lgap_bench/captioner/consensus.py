"""A captioner that asks several times: of all captions of several views, the one most like the others wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgap_bench.metric.caption import rouge_l
from lgap_bench.noise import Noise


class Consensus(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> one sentence each. Ours: an answer to the attackable captioner of LGAP.

    Every captioner describes every view; the caption with the highest mean ROUGE-L F1 to all the others is the answer,
    the first one in case of a tie (the order is that of the captioners, and of the views within each). Views are fixed
    transforms, so that a caption needs no draw and the attacker meets the same ones: the plain image first, then four
    shifts, a blur and a rescaling.

    Args:
        captioners: name -> captioner, at least one.
        shift: pixels to the left, right, up and down, edges repeated; 0 for none.
        blur: standard deviation of a Gaussian blur in pixels; 0 for none.
        scale: the image is resized to this share of its side and back; 1 for none.
    """

    def __init__(
        self, captioners: Mapping[str, nn.Module], shift: int = 1, blur: float = 0.7, scale: float = 0.75
    ) -> None:
        super().__init__()
        if not isinstance(captioners, Mapping):
            raise ValueError(
                "captioner.captioners is a list: give each captioner a name, as conf/captioner/digits/consensus.yaml"
            )
        self.captioners = nn.ModuleDict({str(name): captioner for name, captioner in captioners.items()})
        if not self.captioners:
            raise ValueError("captioner.captioners is empty: name at least one captioner")
        self.shift, self.blur, self.scale = shift, blur, scale

    @property
    def by_image(self) -> bool:
        """Whether the answer follows from the image alone: it does where every captioner's does."""
        return all(getattr(captioner, "by_image", False) for captioner in self.captioners.values())

    @torch.no_grad()
    def forward(self, x: Tensor, noise: Noise | None = None) -> list[str]:
        """The captions that agree best."""
        views = self.views(x)
        rows = torch.cat(views)
        repeated = None if noise is None else Noise(noise.keys * len(views), noise.ids * len(views), noise.seed)
        captions = [caption for captioner in self.captioners.values() for caption in captioner(rows, repeated)]
        return [agreed(captions[i :: len(x)]) for i in range(len(x))]

    def loss(self, x: Tensor, captions: list[str]) -> Tensor:
        """Mean teacher-forced loss of the captions, (B,), over all views and all captioners that have a loss.

        What an attack raises (or lowers, for a target) to move the consensus; differentiable in x.
        """
        losses: list[Any] = [captioner.loss for captioner in self.captioners.values() if hasattr(captioner, "loss")]
        if not losses:
            raise ValueError("captioner.captioners holds none that can be attacked: add a BLIP captioner")
        views = self.views(x)
        rows = torch.cat(views)
        return torch.cat([loss(rows, captions * len(views)) for loss in losses]).view(-1, len(x)).mean(0)

    def views(self, x: Tensor) -> list[Tensor]:
        """The plain image and its transforms, all of x's size; differentiable in x."""
        found = [x]
        if self.shift:
            found += _shifts(x, self.shift)
        if self.blur:
            found.append(_blurred(x, self.blur))
        if self.scale != 1:
            found.append(_rescaled(x, self.scale))
        return found


def agreed(captions: list[str]) -> str:
    """The caption of highest mean ROUGE-L F1 to the others; the first one in case of a tie."""
    if len(set(captions)) == 1:
        return captions[0]
    # Likeness to itself is 1 for each and changes no order, so that the sum over all may stand for the mean of others.
    likeness = [sum(rouge_l(one, other) for other in captions) for one in captions]
    best = max(likeness)
    # Sums of the same terms in another order may differ in the last digit.
    return next(c for c, value in zip(captions, likeness, strict=True) if value >= best - 1e-9)


def _shifts(x: Tensor, by: int) -> list[Tensor]:
    """Left, right, up, down by whole pixels; what comes in repeats the edge."""
    height, width = x.shape[-2:]
    wide = F.pad(x, (by, by, by, by), mode="replicate")
    corners = ((by, 2 * by), (by, 0), (2 * by, by), (0, by))  # (top, left) of each window in the padded image
    return [wide[..., top : top + height, left : left + width] for top, left in corners]


def _blurred(x: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian, cut off at three standard deviations, edges repeated."""
    reach = max(1, round(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(padded, kernel[:, :, None, :], groups=x.shape[1])
    return F.conv2d(across, kernel[:, :, :, None], groups=x.shape[1])


def _rescaled(x: Tensor, share: float) -> Tensor:
    """Down (or up) and back, bilinear with antialiasing: stays in [0, 1]."""
    height, width = x.shape[-2:]
    size = (max(1, round(share * height)), max(1, round(share * width)))
    image = x.float() if x.dtype == torch.bfloat16 else x  # antialiasing knows no bfloat16 on a CPU
    small = F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)
    back = F.interpolate(small, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return back.to(x.dtype)
