"""One reverse step each, as pure functions: (x_t, e, a_t, a_s, n) -> x_s with s < t and a the cumulative signal."""

from __future__ import annotations

from torch import Tensor


def ddim(x_t: Tensor, e: Tensor, a_t: float, a_s: float, n: Tensor | None = None) -> Tensor:
    """DDIM with eta = 0 (Song et al. 2021, eq. 12): x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) e; draws no noise.

    x_0 = (x_t - sqrt(1 - a_t) e) / sqrt(a_t), not clipped (Stable Diffusion's setting).
    """
    x_0 = (x_t - (1 - a_t) ** 0.5 * e) / a_t**0.5
    return a_s**0.5 * x_0 + (1 - a_s) ** 0.5 * e
