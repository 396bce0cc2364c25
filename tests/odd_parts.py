"""Purifiers, classifiers and data sets that break one promise each, chosen through YAML as a user's own parts are."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lgap_bench.classifier.wide_resnet import load
from lgap_bench.dataset.base import DataSet
from lgap_bench.dataset.digits import digits
from lgap_bench.noise import Noise
from lgap_bench.purifier.base import Purifier

WEIGHTS = "embedded:digits/standard"


def _write(x: Tensor) -> Tensor:
    return x.mul_(0.5)


def _python_exit(x: Tensor) -> Tensor:
    sys.exit(3)


def _raises(error: BaseException) -> Any:
    def forward(x: Tensor) -> Tensor:
        raise error

    return forward


def _switches(x: Tensor) -> Tensor:
    return 1 - x if torch.is_grad_enabled() else x


def _numpy_noise(x: Tensor) -> Tensor:
    return (x + 0.01 * torch.from_numpy(np.random.rand(*x.shape)).to(x)).clamp(0, 1)


ODD = {
    "torch_generator": lambda x: (x + 0.01 * torch.rand_like(x)).clamp(0, 1),
    "numpy_generator": _numpy_noise,
    "python_generator": lambda x: (x + 0.01 * random.random()).clamp(0, 1),
    "own_seed": lambda x: (torch.manual_seed(0), x + 0.01 * torch.rand_like(x))[1].clamp(0, 1),
    "batch_mean": lambda x: (x - 0.9 * x.mean(0, keepdim=True)).clamp(0, 1),
    "first_row": lambda x: torch.cat([1 - x[:1], x[1:]]),
    "gradient_switch": _switches,
    "follows_switch": lambda x: 1 - x if x.requires_grad else x,
    "identity": lambda x: x,
    "writes": _write,
    "bytes_range": lambda x: 255 * x,
    "symmetric_range": lambda x: 2 * x - 1,
    "uint8": lambda x: (255 * x).to(torch.uint8),
    "another_size": lambda x: x[..., ::2, ::2],
    "nothing": lambda x: None,
    "pair": lambda x: (x, x),
    "array": lambda x: x.detach().numpy(),
    "grey": lambda x: x.mean(1, keepdim=True),
    "not_finite": lambda x: x / (x * 0),
    "raises": _raises(KeyError("lost")),
    "raises_value": _raises(ValueError("bad\nvalue")),
    "raises_arithmetic": _raises(FloatingPointError("nan")),
    "raises_file": _raises(FileNotFoundError(2, "No such file", "table.npy")),
    "exits": _python_exit,
    "no_gradient": lambda x: x.detach(),
    "gradient_breaks": lambda x: torch.from_numpy(x.numpy().copy()),
}


class Odd(Purifier):
    """The purifier that does one odd thing."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Any:
        return ODD[self.kind](x)


class Undeclared(Purifier):
    """Draws, and says that it does not."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return (x + 0.2 * noise.normal(x, "undeclared")).clamp(0, 1)


class Remembers(Purifier):
    """Its answer depends on how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        self.calls += 1
        return x * (1 - 0.01 * self.calls)


class Trains(Purifier):
    """Turns training mode on by itself."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        self.train()
        return x


class OneArgument(Purifier):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x


class NoCaptions(Purifier):
    def forward(self, x: Tensor, noise: Noise) -> Tensor:  # type: ignore[override]
        return x


class Rows(Purifier):
    """Asks its noise for more rows than there are: an error of this project's, raised through the part's code."""

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return x + noise.normal(x.repeat(2, 1, 1, 1), "rows")[: len(x)]


class NoSuper(Purifier):
    def __init__(self) -> None:
        self.sum = 1


class NoSuperModule(Purifier):
    def __init__(self) -> None:
        self.layer = nn.Conv2d(3, 3, 1)


class NoModule:
    def __call__(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        return x


class Constructor(Purifier):
    """Fails before it is there."""

    def __init__(self, kind: str) -> None:
        if kind == "exits":
            sys.exit(4)
        raise {"raises": RuntimeError, "raises_value": ValueError, "raises_file": FileNotFoundError}[kind]("no luck")


class Counts(Purifier):
    """Counts the rows it was given, over all instances."""

    rows = 0

    def forward(self, x: Tensor, noise: Noise, observed: list[str] | None = None) -> Tensor:
        Counts.rows += len(x)
        return x


def _odd_logits(kind: str, logits: Tensor, x: Tensor) -> Any:
    return {
        "count": lambda: logits.softmax(1)[:, :7],
        "pair": lambda: (logits, x),
        "nothing": lambda: None,
        "flat": lambda: logits.flatten(),
        "not_finite": lambda: logits / 0 * 0,
        "labels": lambda: logits.argmax(1),
        "integers": lambda: logits.long(),
        "random": lambda: logits + torch.rand_like(logits),
        "batch": lambda: logits - logits.mean(0, keepdim=True),
        "raises": lambda: {}["image"],
        "exits": lambda: sys.exit(5),
        "writes": lambda: (x.zero_(), logits)[1],
        "rolled": lambda: logits.roll(1, 1),
        "probabilities": lambda: logits.softmax(1),
    }[kind]()


class OddClassifier(nn.Module):
    """The digit classifier that does one odd thing."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.model, self.kind = load(WEIGHTS), kind

    def forward(self, x: Tensor) -> Any:
        return _odd_logits(self.kind, self.model(x), x)


class TrainsClassifier(OddClassifier):
    """Turns dropout on by itself."""

    def forward(self, x: Tensor) -> Any:
        self.model.train()
        return self.model(x)


def odd_digits(labels: str) -> DataSet:
    """The digits with labels of another kind."""
    data = digits()
    kinds: dict[str, Any] = {"float": data.labels.float(), "list": data.labels.tolist(), "bool": data.labels > 4}
    return replace(data, labels=kinds[labels])
