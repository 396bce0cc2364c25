"""What the exact gradient holds: memory bounded by recomputation, and no gradient where none is asked for."""

from __future__ import annotations

import torch
from test_gradients import lgap
from torch import Tensor

from lgap_bench.attack.problem import estimate
from lgap_bench.noise import Noise
from lgap_bench.task import loss as losses


def saved_bytes(prior, gib: float | None, steps: int, x: Tensor, noise: Noise) -> int:
    """What autograd keeps between the forward and the backward pass; weights, which lie there anyway, left out."""
    kept: dict[tuple[int, int], int] = {}
    weights = {p.data_ptr() for p in prior.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr(), tensor._version] = tensor.nelement() * tensor.element_size()
        return tensor

    purifier = lgap(prior, gib, steps=steps, strength=1.0)
    held = []  # keeps memory from being reused while it is counted
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (held.append(t), keep(t))[1], lambda t: t):
        purifier(x.requires_grad_(), noise)
    return sum(kept.values())


def test_memory_is_bounded_by_recomputation_not_by_the_steps(prior, images, make_problem, smooth):
    x = images(2, 32)
    noise = make_problem(smooth(32), x).stream("attack").draws()
    latents = 2 * 4 * 8 * 8 * 4  # bytes of one z_t
    kept = {(gib, steps): saved_bytes(prior, gib, steps, x, noise) for gib in (0, None) for steps in (2, 6)}
    assert kept[None, 6] - kept[None, 2] > 4 * 500 * latents, "plain autograd keeps every layer of every step"
    assert kept[0, 6] - kept[0, 2] <= 4 * 4 * latents, "recomputation keeps little more than z_t of every step"
    assert kept[0, 6] < kept[None, 2] / 50


def test_recomputation_frees_each_step_before_the_next_backward_too(prior, images, make_problem, smooth):
    """Counted at the network: every step runs once forward and once more for the gradient, never all at once."""
    calls: list[int] = []
    hook = prior.unet.register_forward_pre_hook(lambda _, inputs: calls.append(int(inputs[1])))
    x = images(2, 32)
    problem = make_problem(smooth(32), x, purifier=lgap(prior))
    calls.clear()
    estimate(problem, x, problem.stream("attack").draws(), losses.cross_entropy)
    hook.remove()
    times = problem.view.defense.purifier.times
    assert calls == times + times[::-1]


def test_no_gradient_is_computed_where_none_is_asked_for(prior, images, make_problem, smooth):
    x = images(2, 32)
    problem = make_problem(smooth(32), x, purifier=lgap(prior))
    noise = problem.stream("score").draws(2)
    assert not problem.view.query(x, noise).requires_grad
    assert all(not p.requires_grad for p in problem.view.defense.parameters())
    assert not problem.view.defense.training
