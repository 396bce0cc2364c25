"""Samplers against closed forms: with Gaussian data the score is known, every step is affine, and moments follow exactly."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from pixels import ExactPrior, affine, betas, noise_of, propagate, tiny

from lgap_bench.prior import schedule
from lgap_bench.prior.schedule import END, Step
from lgap_bench.purifier.diffusion import reverse, states
from lgap_bench.purifier.sampler import DDIM, DDPM, ProbabilityFlow, ReverseSDE, clean

A_END = schedule.alpha(END)


def halved(errors: list[float]) -> bool:
    """First order: half the step, half the error."""
    return all(1.8 < a / b < 2.2 for a, b in pairwise(errors))


@pytest.mark.parametrize("t_star, dts", [(1.0, (1 / 500, 1 / 1000, 1 / 2000)), (0.1, (1 / 100, 1 / 200, 1 / 400))])
def test_the_reverse_sde_ends_in_the_data_s_distribution_to_first_order(t_star, dts):
    prior = ExactPrior()
    expected = prior.moments(A_END)
    ends = [propagate(prior, ReverseSDE(dt), t_star, *prior.moments(schedule.alpha(t_star))) for dt in dts]
    for moment, name in enumerate(("mean", "variance")):
        errors = [abs(end[moment] - expected[moment]) for end in ends]
        assert halved(errors), f"{name}: errors {errors} for dt {dts}"
        assert errors[-1] < 0.01


@pytest.mark.parametrize("t_star, dts", [(1.0, (1 / 500, 1 / 1000, 1 / 2000)), (0.1, (1 / 100, 1 / 200, 1 / 400))])
def test_the_ode_is_the_analytic_map_to_first_order(t_star, dts):
    """x_s = m_s + sqrt(v_s / v_t) (x_t - m_t): the flow of Gaussian marginals onto each other."""
    prior = ExactPrior()
    (m_t, v_t), (m_s, v_s) = prior.moments(schedule.alpha(t_star)), prior.moments(A_END)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 9)
    expected = m_s + math.sqrt(v_s / v_t) * (x - m_t)
    errors = []
    for dt in dts:
        sampler = ProbabilityFlow(dt)
        out = reverse(prior, x, sampler.steps(prior, t_star), None, sampler, noise_of(1))
        errors.append((out - expected).abs().max().item())
    assert halved(errors), f"errors {errors} for dt {dts}"
    assert errors[-1] < 0.02


def test_the_loop_samples_what_the_moments_say():
    """The same by drawing: 48,000 values through the loop and its keyed noise."""
    prior, sampler = ExactPrior(), ReverseSDE(0.02)
    mean, variance = prior.moments(schedule.alpha(0.2))
    noise = noise_of(500)
    x = mean + variance**0.5 * noise.normal(torch.empty(500, 96, dtype=torch.float64), "start")
    out = reverse(prior, x, sampler.steps(prior, 0.2), None, sampler, noise)
    expected = propagate(prior, sampler, 0.2, mean, variance)
    spread = expected[1] ** 0.5 / 48000**0.5
    assert abs(out.mean().item() - expected[0]) < 4 * spread
    assert abs(out.var().item() / expected[1] - 1) < 4 * (2 / 48000) ** 0.5


def test_the_grid_has_every_step_ends_at_1e_5_and_does_not_overlap():
    grid = schedule.time_grid(0.1, 1e-3)
    assert len(grid) == 100
    assert grid[0][0] == pytest.approx(0.1, abs=1e-12)
    for (t, h), (after, _) in pairwise(grid):
        assert t - h == pytest.approx(after, abs=1e-12)
        assert h == pytest.approx(1e-3, abs=1e-12)
    t, h = grid[-1]
    assert t - h == pytest.approx(END, abs=1e-12)
    assert h == pytest.approx(1e-3 - END, abs=1e-12)
    steps = ReverseSDE(1e-3).steps(ExactPrior(), 0.1)
    assert [step.last for step in steps] == [False] * 99 + [True]
    assert [step.index for step in steps] == list(range(100))
    assert steps[-1].a_s == pytest.approx(A_END, abs=1e-12)


def test_labels_are_those_of_the_papers_networks():
    """`floor` in float32, where 1 - 0.995 is 0.005 still; `scaled` is not rounded. The values DiffPure's solver meets."""
    floored = [step.label for step in ReverseSDE(1e-3).steps(tiny(labels="floor"), 0.005)]
    assert floored == [5, 4, 3, 2, 1]
    scaled = [step.label for step in ReverseSDE(0.0125).steps(tiny(), 0.1)]
    assert scaled == pytest.approx([999 * (0.1 - 0.0125 * i) for i in range(8)], abs=1e-9)


def test_a_continuous_label_reaches_the_network_whole():
    """diffusers' UNet2DModel turns a plain 199.8 into 199."""
    prior, x = tiny(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    low, label, high = (prior.predict(x, t)[0] for t in (199, 199.8, 200))
    each = prior.predict(x, torch.full((2,), 199.8))[0]
    assert torch.equal(label, each)
    assert (label - low).abs().max() > 2 * (label - high).abs().max() > 0


def step_of(t: int, s: int, prior: ExactPrior) -> Step:
    return Step(0, t, prior.alpha(t), prior.alpha(s), (t + 1) / 1000, last=s < 0)


@pytest.mark.parametrize("t", [999, 500, 149, 1, 0])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_a_ddpm_step_has_the_textbook_moments(t, variance):
    """Ho et al. 2020: mean by eq. 11, variance beta or its posterior value by eq. 7, from the betas themselves."""
    prior = ExactPrior(continuous=False)
    beta = betas()[t].item()
    bar, before = math.prod(1 - b for b in betas()[: t + 1].tolist()), math.prod(1 - b for b in betas()[:t].tolist())
    x, e = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(t)).chunk(2)
    sampler, step = DDPM(variance, clip=False), step_of(t, t - 1, prior)
    mean, log_variance = sampler.moments(x, e, None, step)
    torch.testing.assert_close(mean, (x - beta / math.sqrt(1 - bar) * e) / math.sqrt(1 - beta), rtol=1e-9, atol=1e-9)
    if t > 0:  # the last step's noise is left out
        expected = beta if variance == "fixed_large" else beta * (1 - before) / (1 - bar)
        assert math.exp(log_variance) == pytest.approx(expected, rel=1e-9)
    n = torch.ones_like(x)
    assert torch.equal(sampler(x, e, None, step, n), mean if t == 0 else mean + math.exp(0.5 * log_variance) * n)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_guidance_in_the_last_step_has_the_posterior_variance_of_the_step_before(variance):
    """Ho et al.'s code, on which GDMP's builds: 5.45e-5 on the linear schedule, where beta is 1e-4 and the posterior's 0."""
    prior, sampler = ExactPrior(continuous=False), DDPM(variance, clip=False)
    before, last = sampler.steps(prior, 0.06)[-2:]
    x, g = torch.zeros(2, 1, 1, 3, dtype=torch.float64), torch.ones(2, 1, 1, 3, dtype=torch.float64)
    pushed = sampler(x, x, None, last, None, g) - sampler(x, x, None, last)
    (b_0, b_1), bar = betas()[:2].tolist(), math.prod(1 - b for b in betas()[:2].tolist())
    expected = b_1 * b_0 / (1 - bar)
    assert expected == pytest.approx(5.45e-5, rel=1e-3)
    torch.testing.assert_close(pushed, torch.full_like(x, expected), rtol=1e-9, atol=0)
    log_variance = sampler.moments(x, x, None, before)[1]
    assert math.exp(log_variance) == pytest.approx(b_1 if variance == "fixed_large" else expected, rel=1e-9)


def test_clipping_holds_the_clean_estimate_in_the_box():
    prior, x = ExactPrior(continuous=False), torch.full((1, 1, 1, 3), 0.5, dtype=torch.float64)
    e = torch.tensor([-3.0, 0.4, 3.0], dtype=torch.float64).view(1, 1, 1, 3)
    step = step_of(499, 249, prior)
    x_0 = clean(x, e, step)
    assert x_0[..., 0] > 1
    assert x_0[..., 2] < -1
    mean, _ = DDPM(clip=True).moments(x, e, None, step)
    other, _ = DDPM(clip=False).moments(x, e, None, step)
    kept = step.a_t / step.a_s
    by_hand = (math.sqrt(step.a_s) * (1 - kept) * x_0.clamp(-1, 1) + math.sqrt(kept) * (1 - step.a_s) * x) / (
        1 - step.a_t
    )
    torch.testing.assert_close(mean, by_hand, rtol=1e-12, atol=1e-12)
    assert torch.equal(mean[..., 1], other[..., 1])
    assert not torch.equal(mean[..., 0], other[..., 0])


@pytest.mark.parametrize("calls", [None, 1, 3, 7])
def test_strided_ddpm_keeps_the_exact_marginals(calls):
    """Point data: the posterior is exact, so x_s ~ N(sqrt(a_s) mean, 1 - a_s) at any stride. Unit data: `fixed_large` is."""
    point, unit = ExactPrior(0.3, 0.0, continuous=False), ExactPrior(0.0, 1.0, continuous=False)
    small, large = DDPM("fixed_small", False, calls), DDPM("fixed_large", False, calls)
    assert len(small.steps(point, 0.5)) == (calls or 500)
    for step in small.steps(point, 0.5):
        c, d, k = affine(point, small, step)
        mean, variance = point.moments(step.a_t)
        ends = c * mean + d, c * c * variance + k * k
        assert ends == pytest.approx(point.moments(step.a_s), abs=1e-9)
        c, d, k = affine(unit, large, step)
        assert (d, c * c + k * k) == pytest.approx((0, step.a_t / step.a_s if step.last else 1), abs=1e-9)


def test_the_learned_variance_lies_between_both_on_a_log_scale():
    prior, x = ExactPrior(continuous=False), torch.zeros(1, 5, dtype=torch.float64)
    v, step = torch.tensor([[-1.0, -0.5, 0.0, 0.5, 1.0]], dtype=torch.float64), step_of(149, 148, prior)
    _, log_variance = DDPM("learned_range").moments(x, x, v, step)
    small, large = (DDPM(kind).moments(x, x, None, step)[1] for kind in ("fixed_small", "fixed_large"))
    expected = torch.linspace(small, large, 5, dtype=torch.float64).view(1, 5)
    torch.testing.assert_close(log_variance, expected, rtol=1e-12, atol=1e-12)
    n = torch.full_like(x, 2.0)
    moved = DDPM("learned_range")(x, x, v, step, n) - DDPM("learned_range")(x, x, v, step, None)
    torch.testing.assert_close(moved, 2 * (expected / 2).exp(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", [DDPM("learned_range"), DDPM("fixed_small"), DDPM("fixed_large")])
@pytest.mark.parametrize("learned", [True, False])
def test_a_variance_output_and_a_sampler_that_does_not_use_it_are_refused(sampler, learned):
    prior = tiny(learned_variance=learned)
    if learned == (sampler.variance == "learned_range"):
        return prior.check_sampler(sampler)
    with pytest.raises(
        ValueError, match=rf"purifier\.sampler\.variance={sampler.variance}, and the prior predicts"
    ) as caught:
        prior.check_sampler(sampler)
    assert "\n" not in str(caught.value)


def test_noise_flags_leave_out_what_they_say():
    prior = ExactPrior()
    steps = ReverseSDE(0.05).steps(prior, 0.2)
    for step in steps:
        scale = math.sqrt(schedule.beta(step.t) * step.h)
        assert affine(prior, ReverseSDE(0.05), step)[2] == pytest.approx(scale, rel=1e-12)
        assert affine(prior, ReverseSDE(0.05, last_noise=False), step)[2] == pytest.approx(scale * (not step.last))
    x = torch.full((2, 3), 0.4, dtype=torch.float64)

    def end(sampler, seed):
        return reverse(prior, x, sampler.steps(prior, 0.2), None, sampler, noise_of(2, seed))

    silent = ReverseSDE(0.05, noise=False)
    assert (silent.draws, ReverseSDE().draws, ProbabilityFlow().draws, DDIM().draws) == (False, True, False, False)
    assert torch.equal(end(silent, 0), end(silent, 1))
    assert not torch.equal(end(ReverseSDE(0.05), 0), end(ReverseSDE(0.05), 1))
    assert not torch.equal(end(silent, 0), end(ProbabilityFlow(0.05), 0)), "the ODE takes half the score"
    with pytest.raises(ValueError, match="probability flow ODE"):
        ProbabilityFlow(0.05, noise=True)


@pytest.mark.parametrize("calls", [None, 1, 4])
def test_ddim_carries_the_noise_of_point_data_along_unchanged(calls):
    """Song et al. 2021a, eq. 12: with x_0 known, x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) n for the n that x_t holds."""
    prior, sampler = ExactPrior(0.3, 0.0, continuous=False), DDIM(calls)
    steps = sampler.steps(prior, 0.2)
    n = torch.linspace(-2, 2, 6, dtype=torch.float64).view(1, 6)
    x = math.sqrt(steps[0].a_t) * 0.3 + math.sqrt(1 - steps[0].a_t) * n
    for step, state in zip(steps, states(prior, x, steps, None, sampler, noise_of(1)), strict=True):
        expected = math.sqrt(step.a_s) * 0.3 + math.sqrt(1 - step.a_s) * n
        torch.testing.assert_close(state, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "t_star, calls, times",
    [
        (0.004, None, [3, 2, 1, 0]),
        (0.004, 4, [3, 2, 1, 0]),
        (0.004, 3, [3, 2, 1]),
        (0.2, 2, [199, 100]),
        (0.001, 1, [0]),
    ],
)
def test_discrete_steps_begin_at_the_level_of_t_star(t_star, calls, times):
    prior = ExactPrior(continuous=False)
    steps = DDIM(calls).steps(prior, t_star)
    assert [step.label for step in steps] == times
    assert steps[-1].a_s == 1
    assert [step.a_s for step in steps[:-1]] == [step.a_t for step in steps[1:]]


BAD = {
    r"t_star=10 is not in \(0, 1\].* 0\.1 for 100 steps": lambda: ReverseSDE(0.1).steps(ExactPrior(), 10),
    r"t_star=0 is not in \(0, 1\]": lambda: DDIM().steps(ExactPrior(), 0),
    r"dt=0\.03 does not divide purifier\.t_star=0\.1": lambda: ReverseSDE(0.03).steps(ExactPrior(), 0.1),
    r"dt=0\.2 is not in": lambda: ReverseSDE(0.2).steps(ExactPrior(), 0.1),
    r"dt=1e-06 is not in": lambda: ReverseSDE(1e-6).steps(ExactPrior(), 0.1),
    r"t_star=0\.0001 is less than one": lambda: DDIM().steps(ExactPrior(), 0.0001),
    r"calls=101 is not in \[1, 100\]": lambda: DDPM(calls=101).steps(ExactPrior(), 0.1),
    r"variance=large is not known": lambda: DDPM("large"),
}


@pytest.mark.parametrize("words", BAD)
def test_settings_that_cannot_work_are_refused_in_one_line(words):
    with pytest.raises(ValueError, match=words) as caught:
        BAD[words]()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("t_star, dt", [(0.2, 0.03), (0.1, 0.03), (0.15, 0.04), (0.1, 0.3)])
def test_the_step_that_a_refusal_proposes_is_accepted(t_star, dt):
    with pytest.raises(ValueError, match=r"use ") as caught:
        schedule.time_grid(t_star, dt)
    assert schedule.time_grid(t_star, float(str(caught.value).rsplit("e.g. ", 1)[1]))
