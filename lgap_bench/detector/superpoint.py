"""SuperPoint (DeTone et al. 2018) keypoints grouped by a Gaussian mixture: masks without classes (Conditioned denoising, 3.2).

The paper names "SuperPoint+GMM" and no more. Ours: the best keypoints, a mixture over (x, y) whose number of components has
the least BIC, and of each component the ellipse of two standard deviations.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgap_bench.detector import masks, odds
from lgap_bench.detector.base import Detector, Found
from lgap_bench.noise import Noise
from lgap_bench.runtime import examined
from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.pixels import Pixels
from lgap_bench.runtime.pretrained import pretrained, require_finite

LUMINANCE = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as transformers turns colours to grey
SIGMAS = 2.0  # radius of an ellipse
PIXEL = 1.0  # variance in pixels that is added to each component: points on a line still have an area
SEED = 0  # of the mixture's start: the same image has the same mask in every cell


class SuperPoint(Detector):
    """Images (B, 3, H, W) in [0, 1] -> ellipses around groups of keypoints. Names nothing; deterministic; weights frozen.

    Args:
        model: a `SuperPointForKeypointDetection`; its config's `keypoint_threshold` decides what is a keypoint.
        processor: its image processor.
        keypoints: how many of an image's keypoints are grouped, those of the largest scores.
        components: most groups.
        dilation: pixels by which the mask is grown.
    """

    attackable = True
    model: Any  # a transformers class, whose config nn.Module would hide
    luminance: Tensor

    def __init__(
        self, model: Any, processor: Any, keypoints: int = 128, components: int = 5, dilation: int = 0
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("keypoints", keypoints, 1),
            ("components", components, 1),
            ("dilation", dilation, 0),
        ):
            if value < least:
                raise ValueError(f"detector.{name}={value} is less than {least}: give a larger number")
        self.model = model.eval().requires_grad_(False)
        self.pixels = Pixels(processor, "detector")
        self.register_buffer("luminance", torch.tensor(LUMINANCE).view(1, 3, 1, 1), persistent=False)
        self.keypoints, self.components, self.dilation = keypoints, components, dilation
        self.threshold = float(model.config.keypoint_threshold)

    def grey(self, x: Tensor) -> Tensor:
        """Luminance in all three channels, of which the model reads the first, at the size that it reads."""
        return self.pixels((x * self.luminance).sum(1, keepdim=True).expand(-1, 3, -1, -1)).to(self.model.dtype)

    def find(self, x: Tensor, noise: Noise | None) -> list[Found]:
        out = self.model(pixel_values=self.grey(x))
        found = zip(out.keypoints, out.scores, out.mask, strict=True)
        return [self._found(places[real > 0], scores[real > 0], x) for places, scores, real in found]

    def presence(self, x: Tensor) -> Tensor:
        """(B,): see `odds.presence`. Each 8x8 cell of the score map is a query, its 64 pixels are the classes.

        Before the suppression of a maximum's neighbours, which only chooses among pixels of one neighbourhood.
        """
        features = self.model.encoder(self.grey(x)[:, :1])[0]
        head = self.model.keypoint_decoder
        cells = head.conv_score_b(torch.relu(head.conv_score_a(features))).flatten(2).transpose(1, 2)
        said = torch.arange(cells.shape[-1] - 1, device=x.device)
        return odds.presence(cells, said, softmax=True, threshold=self.threshold)

    def _found(self, places: Tensor, scores: Tensor, x: Tensor) -> Found:
        """Of one image, keypoints (n, 2) as shares of width and height, and their scores."""
        height, width = x.shape[-2:]
        best = scores.argsort(descending=True, stable=True)[: self.keypoints]
        points = places[best].double().cpu().numpy() * np.array([width, height])
        shares, means, covariances = (torch.from_numpy(each) for each in mixture(points, self.components))
        mask = masks.dilated(
            masks.union(masks.from_ellipses(means, covariances, (height, width), SIGMAS)), self.dilation
        )
        reach = SIGMAS * covariances.diagonal(dim1=1, dim2=2).sqrt()
        boxes = torch.cat([means - reach, means + reach], dim=1) / torch.tensor([width, height] * 2)
        return Found((), shares.to(x), boxes.clamp(0, 1).to(x), mask.to(x.device))


Mixture = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def mixture(points: NDArray[np.float64], most: int) -> Mixture:
    """Points (n, 2) -> shares (k,), means (k, 2), covariances (k, 2, 2) of the mixture of least BIC, k <= most, by falling share.

    A component has at least two points on average; of a single point there is a circle, of none nothing.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits  # scikit-learn's own

    if len(points) < 2:
        return np.ones(len(points)), points.reshape(-1, 2), np.tile(PIXEL * np.eye(2), (len(points), 1, 1))
    best, least = None, np.inf
    # One thread: a few hundred points are not worth more, and sums do not hang on how many there are.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # of points that lie together, where any grouping will do
        for k in range(1, max(1, min(most, len(points) // 2)) + 1):
            fitted = GaussianMixture(k, covariance_type="full", reg_covar=PIXEL, random_state=SEED).fit(points)
            bic = float(fitted.bic(points))
            if bic < least:
                best, least = fitted, bic
    assert best is not None  # k = 1 always fits
    order = np.argsort(-best.weights_, kind="stable")
    return best.weights_[order], best.means_[order], best.covariances_[order]


def examine(weights: str) -> None:
    """Raise ValueError for what `load` would refuse, by headers and configs alone."""
    from transformers import SuperPointForKeypointDetection, SuperPointImageProcessor

    folder = weight_files.locate(weights)
    examined.examine(SuperPointForKeypointDetection, folder, weights)
    SuperPointImageProcessor.from_pretrained(folder)


def load(weights: str, keypoints: int = 128, components: int = 5, dilation: int = 0) -> SuperPoint:
    """SuperPoint from a folder written by `save_pretrained`: model and image processor."""
    from transformers import SuperPointForKeypointDetection, SuperPointImageProcessor

    folder = weight_files.locate(weights)
    model = pretrained(SuperPointForKeypointDetection, folder, weights)
    require_finite(model, weights)
    return SuperPoint(model, SuperPointImageProcessor.from_pretrained(folder), keypoints, components, dilation)
