"""Guidance terms against closed forms and autograd: strength, direction, independence of the batch, what is differentiated."""

from __future__ import annotations

import math

import pytest
import torch
from pixels import noise_of, tiny
from torch import Tensor, nn

from lgap_bench.prior.schedule import Step
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.purifier.guidance import ClassifierConfidence, Distance, ssim
from lgap_bench.purifier.sampler import ReverseSDE, clean

STEP = Step(0, 199.0, 0.64, 0.7, 0.2, 0.05)  # sqrt(a_t) = 0.8, sqrt(1 - a_t) = 0.6
PIXELS = 3 * 8 * 8


class Linear(nn.Module):
    """Logits W x: the gradient of log max softmax is W_k - sum_j p_j W_j."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(classes, PIXELS, generator=torch.Generator().manual_seed(7)).double() / 4
        )

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def states_of(rows: int, seed: int = 5) -> Tensor:
    """Noisy states; the i-th is the same however many are asked for."""
    each = [torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(100 * seed + i)) for i in range(rows)]
    return torch.stack(each).double()


def term_of(guidance, x, rows):
    return guidance.term(shown, x, noise_of(rows))


def shown(x):
    return (x + 1) / 2


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("at", ["x_t", "x_0"])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_confidence_is_the_gradient_of_log_max_softmax(at, temperature, batch):
    """d/dx_t log p_k((z + 1) / 2) = (W_k - sum_j p_j W_j) / (2 T), z = x_t or its clean estimate, then divided by sqrt(a_t)."""
    classifier, x_t, e = Linear(), states_of(batch), states_of(batch, seed=6)
    found = term_of(ClassifierConfidence(classifier, 1.7, temperature, at), x_t, batch)(x_t, e, STEP)
    z = (x_t - 0.6 * e) / 0.8 if at == "x_0" else x_t
    p = (classifier((z + 1) / 2) / temperature).softmax(-1)
    W = classifier.weight
    by_hand = (W[p.argmax(1)] - p @ W) / (2 * temperature) * (1.7 / 0.8 if at == "x_0" else 1.7)
    torch.testing.assert_close(found.flatten(1), by_hand.detach(), rtol=1e-10, atol=1e-12)
    leaf = x_t.clone().requires_grad_()
    point = clean(leaf, e, STEP) if at == "x_0" else leaf
    confidence = (classifier((point + 1) / 2) / temperature).softmax(-1).amax(-1).log().sum()
    (expected,) = torch.autograd.grad(1.7 * confidence, leaf)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("at", ["x_t", "x_0"])
def test_the_direction_raises_the_confidence(at, smooth):
    classifier, x_t, e = smooth(8).double(), states_of(8), states_of(8, seed=6)
    guidance = ClassifierConfidence(classifier, at=at)
    d = term_of(guidance, x_t, 8)(x_t, e, STEP)

    def confidence(state):
        return guidance.log_confidence(((clean(state, e, STEP) if at == "x_0" else state) + 1) / 2)

    d = d / d.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert (confidence(x_t + 1e-3 * d) > confidence(x_t)).all()
    assert (confidence(x_t - 1e-3 * d) < confidence(x_t)).all()


def purifier(guidance, **settings) -> DiffPure:
    return DiffPure(tiny(), ReverseSDE(0.05, last_noise=False), 0.1, guidance=guidance, **settings)


@pytest.mark.parametrize("make", [lambda c: ClassifierConfidence(c, 0.0), lambda c: Distance(scale=0.0)])
def test_weight_0_is_unguided_exactly(make, images, smooth):
    x, noise = images(3, 16, dtype=torch.float64), noise_of(3)
    assert torch.equal(purifier(make(smooth().double()))(x, noise), purifier(None)(x, noise))


@pytest.mark.parametrize(
    "changes", [dict(weight=2.0), dict(temperature=3.0), dict(at="x_0")], ids=["weight", "temperature", "at"]
)
def test_every_setting_of_the_confidence_reaches_the_image(changes, images, smooth):
    x, noise, classifier = images(2, 16, dtype=torch.float64), noise_of(2), smooth().double()
    plain = purifier(ClassifierConfidence(classifier))(x, noise)
    assert (plain - purifier(ClassifierConfidence(classifier, **changes))(x, noise)).abs().max() > 1e-4
    assert (plain - purifier(None)(x, noise)).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["confidence", "mse", "ssim"])
def test_detaching_changes_no_image_and_takes_the_term_s_own_derivative_away(kind, images, smooth):
    def make(detach):
        if kind == "confidence":
            return ClassifierConfidence(smooth().double(), detach_guidance=detach)
        return Distance(kind, 3.0, detach_guidance=detach)

    x, noise = images(3, 16, dtype=torch.float64), noise_of(3)
    assert torch.equal(purifier(make(True))(x, noise), purifier(make(False))(x, noise))
    leaf = x.clone().requires_grad_()
    assert torch.equal(purifier(make(True))(leaf, noise), purifier(make(False))(leaf, noise))
    terms = {detach: make(detach).term(shown, leaf, noise)(leaf, leaf, STEP) for detach in (True, False)}
    assert torch.equal(terms[True], terms[False])
    assert not terms[True].requires_grad
    (second,) = torch.autograd.grad(terms[False].square().sum(), leaf)
    assert second.abs().max() > 0


def test_the_second_derivative_of_the_confidence_is_its_hessian(smooth):
    """What `detach_guidance` takes away, entry by entry on a state of 3 x 4 x 4 values."""
    classifier = smooth(4, 3).double()
    x_t = states_of(1)[..., :4, :4].clone().requires_grad_()
    found = term_of(ClassifierConfidence(classifier), x_t, 1)(x_t, x_t, STEP)
    v = torch.randn(x_t.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (product,) = torch.autograd.grad((found * v).sum(), x_t)

    def value(z: Tensor) -> Tensor:
        return classifier((z.view(1, 3, 4, 4) + 1) / 2).log_softmax(-1).amax()

    hessian = torch.autograd.functional.hessian(value, x_t.detach().flatten())
    torch.testing.assert_close(product.flatten(), hessian @ v.flatten(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("guidance", [Distance("mse", 60000), Distance("ssim", 1000), ClassifierConfidence(Linear())])
def test_a_sample_s_guidance_does_not_know_the_size_of_its_batch(guidance, batch):
    x, x_t, e = (states_of(8, seed) for seed in (4, 5, 6))
    together = term_of(guidance, x[:batch], batch)(x_t[:batch], e[:batch], STEP)
    for i in range(batch):
        own = guidance.term(shown, x[i : i + 1], noise_of(8).rows(i, i + 1))
        alone = own(x_t[i : i + 1], e[i : i + 1], STEP)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_mse_draws_towards_the_input_at_the_same_noise_level(batch):
    """scale * 3 / (2 eps) * sqrt((1 - a) / a) * 2 (target - x_t) / pixels."""
    x, x_t, noise = states_of(batch, 4), states_of(batch), noise_of(batch)
    found = term_of(Distance("mse", 100.0, "8/255"), x, batch)(x_t, x_t, STEP)
    target = 0.8 * x + 0.6 * noise.normal(x, "reference 0")
    expected = 100 * 3 / (2 * 8 / 255) * 0.75 * 2 * (target - x_t) / PIXELS
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_ssim_draws_towards_the_input():
    x, x_t = states_of(3, 4), states_of(3)
    d = term_of(Distance("ssim"), x, 3)(x_t, x_t, STEP)
    target = 0.8 * x + 0.6 * noise_of(3).normal(x, "reference 0")
    d = d / d.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert (ssim(x_t + 1e-3 * d, target) > ssim(x_t, target)).all()


def test_every_round_draws_its_own_reference(monkeypatch, images):
    asked: list[str] = []
    guidance = Distance("mse", 1.0)
    kept = type(noise_of(1)).normal
    monkeypatch.setattr(type(noise_of(1)), "normal", lambda self, like, tag: asked.append(tag) or kept(self, like, tag))
    purifier(guidance, rounds=2)(images(1, 16, dtype=torch.float64), noise_of(1))
    assert len(asked) == len(set(asked)) == 2 * (1 + 2 + 2), f"some noise is used twice: {asked}"


def test_a_guidance_that_draws_makes_its_purifier_randomized():
    silent = dict(prior=tiny(), sampler=ReverseSDE(0.05, noise=False), t_star=0.1, forward_noise=None)
    assert DiffPure(**silent, guidance=Distance()).randomized
    assert not DiffPure(**silent).randomized
    assert not DiffPure(**silent, guidance=ClassifierConfidence(Linear())).randomized
    assert DiffPure(**silent, guidance=Distance()).resampled(ReverseSDE(0.1, noise=False)).randomized


def slow_ssim(a: Tensor, b: Tensor, window: int = 11, sigma: float = 1.5) -> float:
    """Wang et al. 2004, pixel by pixel: moments under a Gaussian window, nothing but zeros outside the image."""
    half, channels, (height, width) = window // 2, len(a), a.shape[1:]
    weights = {
        (i, j): math.exp(-(i * i + j * j) / (2 * sigma**2))
        for i in range(-half, half + 1)
        for j in range(-half, half + 1)
    }
    total = sum(weights.values())
    values = []
    for c in range(channels):
        A, B = a[c].tolist(), b[c].tolist()
        for y in range(height):
            for x in range(width):
                m = [0.0] * 5
                for (i, j), weight in weights.items():
                    if 0 <= y + i < height and 0 <= x + j < width:
                        p, q = A[y + i][x + j], B[y + i][x + j]
                        for k, moment in enumerate((p, q, p * p, q * q, p * q)):
                            m[k] += weight / total * moment
                va, vb, cov = m[2] - m[0] ** 2, m[3] - m[1] ** 2, m[4] - m[0] * m[1]
                top = (2 * m[0] * m[1] + 1e-4) * (2 * cov + 9e-4)
                values.append(top / ((m[0] ** 2 + m[1] ** 2 + 1e-4) * (va + vb + 9e-4)))
    return sum(values) / len(values)


def test_ssim_is_that_of_its_definition():
    a, b = states_of(2, 4), states_of(2)
    found = ssim(a, b)
    assert found.shape == (2,)
    assert found.tolist() == pytest.approx([slow_ssim(p, q) for p, q in zip(a, b, strict=True)], abs=1e-10)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_an_image_is_most_like_itself(batch):
    a = states_of(batch)
    torch.testing.assert_close(ssim(a, a), torch.ones(batch, dtype=torch.float64), rtol=0, atol=1e-12)
    other = ssim(a, states_of(batch, 9))
    assert (other < 0.9).all()
    torch.testing.assert_close(ssim(states_of(batch, 9), a), other, rtol=1e-12, atol=0)


BAD = {
    "purifier.guidance.weight=-1": lambda: ClassifierConfidence(Linear(), -1),
    "purifier.guidance.temperature=0": lambda: ClassifierConfidence(Linear(), temperature=0),
    "purifier.guidance.at=x_1": lambda: ClassifierConfidence(Linear(), at="x_1"),
    "purifier.guidance.kind=l1": lambda: Distance("l1"),
    "purifier.guidance.scale=-1": lambda: Distance(scale=-1),
    "purifier.guidance.eps=eight": lambda: Distance(eps="eight"),
}


@pytest.mark.parametrize("words", BAD)
def test_settings_that_cannot_work_are_refused_in_one_line(words):
    with pytest.raises(ValueError, match=words) as caught:
        BAD[words]()
    assert "\n" not in str(caught.value)
