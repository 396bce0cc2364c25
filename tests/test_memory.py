"""The plan of what an exact gradient holds: it changes no number, and keeps within its budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lgap_bench.captioner.text import Fixed
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.identity import identity
from lgap_bench.noise import Noise, streams
from lgap_bench.prior.pixel import PixelPrior
from lgap_bench.purifier.base import Purifier
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.purifier.guidance import ClassifierConfidence, Distance, Guidance
from lgap_bench.purifier.lgap import LGAP
from lgap_bench.purifier.likelihood import LikelihoodMax
from lgap_bench.purifier.memory import GIB, Memory, held, recomputed
from lgap_bench.purifier.sampler import DDIM, ReverseSDE

STEPS = 8
SIDE = 8


class Network(nn.Module):
    """A smooth noise network, which counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"in_channels": 3, "out_channels": 3}
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)
        self.calls: list[float] = []

    def forward(self, x: Tensor, label: Any) -> Tensor:
        self.calls.append(float(torch.as_tensor(label).flatten()[0]))
        return self.second(torch.tanh(self.first(x) + 0.001 * torch.as_tensor(label).view(-1, 1, 1, 1).to(x)))


@pytest.fixture
def pixel() -> PixelPrior:
    torch.manual_seed(4)
    alphas = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    return PixelPrior(Network(), alphas).double()


def noise_of(count: int) -> Noise:
    return streams(0, list(range(count)))["attack"].draws(1)


def gradient(purifier: Purifier, x: Tensor, noise: Noise) -> Tensor:
    x = x.clone().requires_grad_(True)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(x.dtype)
    return torch.autograd.grad((purifier(x, noise) * direction).sum(), x)[0]


def step_bytes(purifier: DiffPure, x: Tensor, noise: Noise) -> int:
    """What one step holds, as the purifier's own plan counts it."""
    purifier.memory = Memory(1.0)
    purifier(x.clone().requires_grad_(True), noise)
    ((size,),) = purifier.memory.measured.values()
    return size


def budgets(purifier: DiffPure, x: Tensor, noise: Noise) -> dict[str, float | None]:
    """GiB with which no step, one, some and all keep their graph, and no budget."""
    size, states = step_bytes(purifier, x, noise), purifier.rounds * STEPS * x.nelement() * x.element_size()
    return {"none": 0.0, "too little": (states + size - 1) / GIB, "one": (states + size) / GIB,
            "some": (states + 3.5 * size) / GIB, "all": (states + 100 * size) / GIB, "null": None}  # fmt: skip


GUIDANCE: dict[str, Callable[[nn.Module], Guidance | None]] = {
    "unguided": lambda classifier: None,
    "confidence": lambda classifier: ClassifierConfidence(classifier),
    "confidence at x_0": lambda classifier: ClassifierConfidence(classifier, at="x_0"),
    "distance to the input": lambda classifier: Distance("mse", 60.0),
}


@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_no_plan_changes_a_bit_of_the_gradient(batch, guidance, pixel, images, smooth):
    x, noise = images(batch, SIDE, dtype=torch.float64), noise_of(batch)
    term = GUIDANCE[guidance](smooth(SIDE).double())
    purifier = DiffPure(pixel, ReverseSDE(0.02), 0.02 * STEPS, guidance=term, rounds=2)
    assert len(purifier.steps) == STEPS
    found = {}
    for name, gib in budgets(purifier, x, noise).items():
        purifier.memory = Memory(gib)
        found[name] = gradient(purifier, x, noise)
    assert found["null"].abs().max() > 1e-3
    for name, each in found.items():
        deviation = ((each - found["null"]).abs().max() / found["null"].abs().max()).item()
        assert deviation <= 1e-10, f"{name}: {deviation:.1e} off plain autograd"
        assert torch.equal(each, found["null"]), f"{name}: not the same bits"


@pytest.mark.parametrize("guidance", ["unguided", "distance to the input"])
def test_likelihood_maximisation_is_recomputed_with_its_second_derivatives(guidance, pixel, images, smooth):
    x, noise = images(3, SIDE, dtype=torch.float64), noise_of(3)
    purifier = LikelihoodMax(pixel, guidance=GUIDANCE[guidance](smooth(SIDE)))
    found = []
    for gib in (None, 0.0, 1.0, 40_000 / GIB):
        purifier.memory = Memory(gib)
        found.append(gradient(purifier, x, noise))
    assert found[0].abs().max() > 1e-3
    assert all(torch.equal(each, found[0]) for each in found)


@pytest.mark.parametrize("plan, kept", [("none", 0), ("too little", 0), ("one", 1), ("some", 3), ("all", STEPS)])
def test_the_last_steps_keep_their_graph_and_the_others_run_twice(plan, kept, pixel, images):
    x, noise = images(2, SIDE, dtype=torch.float64), noise_of(2)
    purifier = DiffPure(pixel, ReverseSDE(0.02), 0.02 * STEPS)
    purifier.memory = Memory(budgets(purifier, x, noise)[plan])
    with torch.no_grad():
        pixel.unet.calls.clear()
        purifier(x, noise)
        labels = list(pixel.unet.calls)
    gradient(purifier, x, noise)  # the first measures what a step holds, once for this batch
    pixel.unet.calls.clear()
    gradient(purifier, x, noise)
    assert pixel.unet.calls == labels + labels[: STEPS - kept][::-1]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_what_is_held_keeps_within_the_budget(batch, pixel, images):
    """Counted over the whole purification, so that the plan's own estimate is not asked about itself."""
    x, noise = images(batch, SIDE, dtype=torch.float64), noise_of(batch)
    purifier = DiffPure(pixel, ReverseSDE(0.02), 0.02 * STEPS, forward_noise=None)
    weights = list(purifier.parameters())
    found = {}
    for name, gib in budgets(purifier, x, noise).items():
        purifier.memory = Memory(gib)
        purifier(x.clone().requires_grad_(True), noise)  # measures a step, so that the count below has none of it
        found[name] = held(lambda z: purifier(z, noise), x, weights)
        if gib and name != "all":
            clipped = x.nelement() * x.element_size()  # the final clip holds its input: no step, and not planned
            assert found[name] <= gib * GIB + clipped, name
    assert found["none"] == found["too little"] < found["one"] < found["some"] < found["all"] == found["null"]


def test_a_budget_serves_the_decoder_first_then_the_last_steps(prior, images):
    x, noise = images(2, 32), noise_of(2)
    purifier = LGAP(prior, Fixed("a photo"), 6, 0.5)
    purifier.memory = Memory(1.0)
    reference = gradient(purifier, x, noise)
    ((step, decoder),) = purifier.memory.measured.values()
    states = 4 * 2 * 4 * 8 * 8 * 4  # inputs of three steps and of the decoder
    calls: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, given, name=name: calls.append(name))
        for name, module in (("step", prior.unet), ("decoder", prior.vae.decoder), ("encoder", prior.vae.encoder))
    ]
    for size, again in (
        (decoder - 1, ["decoder", "step", "step", "step", "encoder"]),
        (decoder, ["step", "step", "step", "encoder"]),
        (decoder + 2 * step, ["step", "encoder"]),
    ):
        purifier.memory = Memory((states + size) / GIB)
        gradient(purifier, x, noise)
        calls.clear()
        assert torch.equal(gradient(purifier, x, noise), reference)
        assert calls == ["encoder", "step", "step", "step", "decoder", *again]
    for hook in hooks:
        hook.remove()


def test_nothing_is_planned_or_measured_where_no_gradient_is_asked_for(pixel, images):
    x, noise = images(2, SIDE, dtype=torch.float64), noise_of(2)
    purifier = DiffPure(pixel, DDIM(STEPS), 0.2)
    purifier.memory = Memory(1.0)
    with torch.no_grad():
        purifier(x.clone().requires_grad_(True), noise)
    purifier(x, noise)
    assert not purifier.memory.measured
    assert len(pixel.unet.calls) == 2 * STEPS


def test_other_batches_are_measured_anew(pixel, images):
    purifier = DiffPure(pixel, DDIM(STEPS), 0.2)
    sizes = [step_bytes(purifier, images(batch, SIDE, dtype=torch.float64), noise_of(batch)) for batch in (1, 3, 8)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] <= 8 * sizes[0]


def test_what_a_function_holds_by_hand():
    """exp holds its result, 3 doubles; a weight is not counted, a storage that is held twice once."""
    weight = torch.ones(3, dtype=torch.float64)
    x = torch.ones(3, dtype=torch.float64)
    assert held(torch.exp, x) == 24
    assert held(lambda z: z.exp() * weight, x, [weight]) == 24
    assert held(lambda z: z.exp() * weight, x) == 48
    assert held(lambda z: z.exp().sin().sum() + 0, x) == 24


def test_a_tensor_that_is_not_the_input_gets_its_gradient_where_it_is_said_to_be_there():
    x = torch.tensor([2.0], requires_grad=True)
    other = torch.tensor([3.0], requires_grad=True)
    y = recomputed(lambda z: z * z * other, x, captured=[other])
    assert [g.item() for g in torch.autograd.grad(y, (x, other))] == [12.0, 4.0]
    y = recomputed(lambda z: z * z * 3, x)
    assert torch.autograd.grad(y, x)[0].item() == 12.0


@pytest.mark.parametrize("purifier", ["lgap", "diffpure", "likelihood_max"])
def test_the_budget_reaches_the_purifier_and_is_no_part_of_the_identity(purifier):
    def named(given: str) -> tuple[str, Any]:
        cell = resolved([f"purifier={purifier}", given])
        return json.dumps(identity(cell, "cpu"), sort_keys=True), cell.purifier["prior"]["memory"]

    (all_kept, null), (budgeted, half) = named("prior.memory=null"), named("prior.memory=0.5")
    assert all_kept == budgeted
    assert (null, half) == (None, 0.5)


@pytest.mark.parametrize("gib", [-1.0, float("nan")])
def test_a_budget_that_is_none_is_refused(gib):
    with pytest.raises(ValueError, match="use null to keep every step, 0 for one step at a time"):
        Memory(gib)
