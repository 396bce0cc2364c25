"""DiffPure's published solver replayed by the project's own loop: trajectories, their gradients, one ancestral step."""

from dataclasses import dataclass

import pytest
import torch
from goldens import golden, network
from torch import Tensor

from lgap_bench.prior.pixel import PixelPrior
from lgap_bench.purifier.diffpure import DiffPure
from lgap_bench.purifier.sampler import DDPM, ReverseSDE, clean, visited

TRAJECTORIES = {
    "traj_ncsnpp_t008_dt1e-3": ("ncsnpp", 0.008, 1e-3),
    "traj_ncsnpp_t100_dt1.25e-2": ("ncsnpp", 0.1, 1.25e-2),
    "traj_adm_t005_dt1e-3": ("adm", 0.005, 1e-3),
}
ALPHAS = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


class Unclipped(PixelPrior):
    """Random networks leave [0, 1], where the clipping of the purified image would hide what is compared."""

    def decode(self, x: Tensor, size: tuple[int, ...] | None = None) -> Tensor:
        return self.image(x)


@dataclass(frozen=True)
class Given:
    """Golden draws by the name of the place that asks for them, in place of keyed noise."""

    draws: dict

    def normal(self, like, tag):
        assert like.shape == self.draws[tag].shape
        return self.draws[tag].to(like.dtype)


def replay(name, dtype, memory):
    """The purified image in [-1, 1] and the gradient of its sum of squares by the input, through all of DiffPure."""
    kind, t_star, dt = TRAJECTORIES[name]
    data = golden(name)
    prior = Unclipped(network(kind).to(dtype), ALPHAS, "scaled" if kind == "ncsnpp" else "floor", memory)
    purifier = DiffPure(prior, ReverseSDE(dt), t_star, forward_noise="discrete")
    noise = Given({"forward": data["forward_noise"], **{f"step {i}": z for i, z in enumerate(data["z"])}})
    x = ((data["x0"] + 1) / 2).to(dtype).requires_grad_()
    out = 2 * purifier(x, noise) - 1
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    return out.detach(), gradient / 2, data


@pytest.mark.parametrize("name", TRAJECTORIES)
@pytest.mark.parametrize("memory", [0.0, None])
def test_diffpure_follows_the_published_solver_and_so_does_its_gradient(name, memory):
    out, gradient, data = replay(name, torch.float64, memory)
    torch.testing.assert_close(out, data["out"], rtol=1e-12, atol=1e-12)
    scale = data["grad_x0"].abs().max().item()
    torch.testing.assert_close(gradient, data["grad_x0"], rtol=1e-11, atol=1e-11 * scale)


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_diffpure_in_float32_is_within_rounding(name):
    out, gradient, data = replay(name, torch.float32, 0.0)
    torch.testing.assert_close(out.double(), data["out"], rtol=1e-5, atol=1e-5)
    scale = data["grad_x0"].abs().max().item()
    torch.testing.assert_close(gradient.double(), data["grad_x0"], rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_steps_labels_and_signal_are_the_published_ones(name):
    kind, t_star, dt = TRAJECTORIES[name]
    data = golden(name)
    prior = PixelPrior(network(kind), ALPHAS, "scaled" if kind == "ncsnpp" else "floor")
    steps = ReverseSDE(dt).steps(prior, t_star)
    assert [step.label for step in steps] == pytest.approx(data["labels"].tolist(), rel=1e-12)
    grid = data["s_grid"]
    assert [step.t for step in steps] == pytest.approx((1 - grid[:, 0]).tolist(), rel=1e-12)
    assert [step.h for step in steps] == pytest.approx((grid[:, 1] - grid[:, 0]).tolist(), rel=1e-12)
    assert prior.alpha(round(1000 * t_star) - 1) == pytest.approx(data["abar"].item(), rel=1e-14)


def test_ancestral_step_with_learned_variance_is_guided_diffusions():
    data = golden("ddpm_step_learned_range")
    prior = PixelPrior(network("adm"), ALPHAS)
    sampler = DDPM("learned_range", clip=True)
    x = data["x"].double()
    e, v = data["model_out"].double().chunk(2, 1)
    times = data["t"].tolist()
    for i, step in enumerate(visited(prior, times, [t - 1 for t in times])):  # the last of them is timestep 0
        # The golden values are in float32, and 1 / sqrt(a) is 158 at timestep 999.
        x_0 = clean(x, e, step).clamp(-1, 1)
        torch.testing.assert_close(x_0, data["pred_x0"][i].double(), rtol=1e-5, atol=1e-5)
        mean, log_variance = sampler.moments(x, e, v, step)
        torch.testing.assert_close(mean, data["mean"][i].double(), rtol=0, atol=5e-7)
        if not step.last:  # the last step draws nothing, so its variance is nobody's
            torch.testing.assert_close(log_variance, data["log_variance"][i].double(), rtol=1e-6, atol=0)
        sample = sampler(x, e, v, step, data["z"][i].double())
        torch.testing.assert_close(sample, data["sample"][i].double(), rtol=0, atol=5e-7)
