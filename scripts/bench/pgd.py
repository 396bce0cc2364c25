"""Part pgd: blind PGD-40 against torchattacks.PGD, on a trained CIFAR-10 ResNet-18 that travels in pyautoattack's wheel."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchattacks
from torch import Tensor, nn

from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.problem import Problem
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.view import Blind
from lgap_bench.cell.values import fraction
from lgap_bench.defense import Defense
from lgap_bench.purifier.base import Purifier
from scripts.bench.settings import Settings
from scripts.bench.timing import race

GOAL = 0.6


class Counted(nn.Module):
    """A classifier that counts its forward passes and the rows in them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.calls, self.rows = model, 0, 0
        self.eval()  # all of it: torchattacks gives a module that says it is training back in training mode

    def forward(self, x: Tensor) -> Tensor:
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        return self.model(x)


def measure(settings: Settings) -> dict[str, Any]:
    """The usual budget, under which nothing survives, and an eighth of it, under which some images do."""
    x, y, images = _images(settings)
    budgets = {f"linf {eps}": _budget(settings, x, y, fraction(eps, "eps")) for eps in ("8/255", "1/255")}
    return {
        "title": f"Blind PGD-{settings.pgd_steps}, step eps/4, ResNet-18, {len(x)} images ({images})",
        "goal": f"at most {GOAL} of torchattacks' time at the same robust accuracy (to one image)",
        "met": {
            f"{budget}, {name}": found["ratios"][f"{name} / torchattacks"]["of_medians"] <= GOAL
            and abs(found["accuracy"][name] - found["accuracy"]["torchattacks"]) <= 100 / len(x)
            for budget, found in budgets.items()
            for name in ("own, last iterate", "own, first success")
        },
        **budgets,
    }


def _budget(settings: Settings, x: Tensor, y: Tensor | None, eps: float) -> dict[str, Any]:
    """Three contestants on the same images, in one batch each, with the same steps and step size.

    `own, last iterate` is conf/attack/pgd.yaml; `own, first success` is the same with keep=best: a sample leaves as
    soon as it is misclassified, which costs less and can only find more.
    """
    plain, own = Counted(_resnet(settings.device)), Counted(_resnet(settings.device))
    x = x.to(settings.device)
    with torch.no_grad():
        y = plain.model(x).argmax(1) if y is None else y.to(settings.device)
    # As lgap_bench.cell.build prepares a classifier; the plain contestant takes it as a user would load it.
    defense = Defense(Purifier(), own).to(memory_format=torch.channels_last)
    problem = Problem(Blind(defense), x, y, tuple(range(len(x))), Threat("linf", eps), seed=0)
    attack = PGD(steps=settings.pgd_steps, step_size=eps / 4, start="random", keep="last")
    library = torchattacks.PGD(plain, eps=eps, alpha=eps / 4, steps=settings.pgd_steps, random_start=True)

    def counted(counter: Counted, run: Callable[[], Tensor]) -> dict[str, Any]:
        calls, rows = counter.calls, counter.rows
        images = run()
        return {"images": images, "counts": {"passes": counter.calls - calls, "rows": counter.rows - rows}}

    torch.manual_seed(0)  # the library draws its random start from the global generator
    for counter in (plain, own):  # the first pass of a process sets up more than it computes
        counter(x)
    ran = race(
        {
            "torchattacks": lambda: counted(plain, lambda: library(x, y)),
            "own, last iterate": lambda: counted(own, lambda: attack(problem)),
            "own, first success": lambda: counted(own, lambda: replace(attack, keep="best")(problem)),
        },
        settings.repetitions,
        settings.device,
        warm=False,
    )
    judge = _resnet(settings.device)  # that no contestant has touched
    return {
        **ran.figures(*((name, "torchattacks") for name in ran.wall if name != "torchattacks")),
        "counts": {name: found["counts"] for name, found in ran.results.items()},
        "clean_accuracy": _accuracy(judge, x, y),
        "accuracy": {name: _accuracy(judge, found["images"], y) for name, found in ran.results.items()},
        "largest_linf": {name: float((found["images"] - x).abs().max()) for name, found in ran.results.items()},
    }


@torch.no_grad()
def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Percent, from a fresh forward pass."""
    return 100 * float((model(x).argmax(1) == y).double().mean())


def _resnet(device: str) -> nn.Module:
    """The ResNet-18 of pyautoattack's examples, weights read as weights only."""
    spec = importlib.util.find_spec("pyautoattack")
    if spec is None or spec.origin is None:
        raise ValueError("the package pyautoattack, whose wheel carries the ResNet-18, is missing: make install")
    folder = Path(spec.origin).parent / "examples"
    code = importlib.util.spec_from_file_location("pyautoattack_resnet", folder / "resnet.py")
    assert code is not None
    assert code.loader is not None
    module: Any = importlib.util.module_from_spec(code)
    code.loader.exec_module(module)
    model = module.ResNet18()
    model.load_state_dict(torch.load(folder / "model_test.pt", map_location="cpu", weights_only=True))
    return model.eval().to(device)


def _images(settings: Settings) -> tuple[Tensor, Tensor | None, str]:
    """CIFAR-10 test images with labels, or random images whose labels are the model's own predictions (None)."""
    file = settings.data / "cifar10_lossless" / "test_0000_0511.npz"
    if file.is_file():
        with np.load(file) as content:
            pixels, labels = content["images"][: settings.pgd_n], content["labels"][: settings.pgd_n]
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).contiguous()
        return x, torch.from_numpy(labels).long(), "CIFAR-10 test"
    generator = torch.Generator().manual_seed(0)
    return torch.rand(settings.pgd_n, 3, 32, 32, generator=generator), None, "random"
