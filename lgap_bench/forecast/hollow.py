"""A cell of models that are not here: its parts on torch's `meta` device, which has shapes and no numbers.

What a pass asks of its networks, how many operations that is and how much memory it holds are all known there.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.attack.problem import Parts
from lgap_bench.attack.stand_in import StandIn
from lgap_bench.attack.view import View
from lgap_bench.cell.about import about
from lgap_bench.cell.config import Cell, Config
from lgap_bench.cell.instantiate import arguments, instantiate
from lgap_bench.dataset.base import DataSet
from lgap_bench.defense import Defense
from lgap_bench.detector.base import encode
from lgap_bench.forecast.held import most_held
from lgap_bench.forecast.networks import watched
from lgap_bench.forecast.operations import Operations
from lgap_bench.forecast.outlines import without_numbers
from lgap_bench.forecast.tally import Kind
from lgap_bench.noise import Noise, streams

MIB = 2**20
WORDS = 12  # tokens of a caption


@dataclass(frozen=True)
class Cost:
    """One row of a kind of pass.

    Attributes:
        gflop: operations of matrix products and convolutions by the class of the network that does them, the way back among
            them; a multiplication and an addition are two.
        mib: memory that is held until the way back.
        networks: calls of each network.
    """

    gflop: Mapping[str, float]
    mib: float
    networks: Mapping[str, float]


def hollow(cell: Cell) -> Parts:
    """The cell's parts without numbers; images are of class 0. Raises ValueError for a part whose architecture is not known."""
    dataset = _images(cell)
    with Operations():  # loaders look at masks
        defense, view = _defense(cell)
    return Parts(dataset, defense, instantiate(cell.attack), view, instantiate(cell.threat))


def _defense(cell: Cell) -> tuple[Defense, View]:
    """Purifier and classifier, and the view of them."""
    classifier = _classifier(cell.classifier)
    config = without_numbers(cell.purifier)
    if isinstance(guide := (config.get("guidance") or {}).get("classifier"), dict):
        config["guidance"] = {**config["guidance"], "classifier": None}
    purifier: Any = instantiate(config)
    if "classifier" in (config.get("guidance") or {}):
        purifier.guidance.classifier = _classifier(guide) if isinstance(guide, dict) else classifier
    defense = Defense(purifier, classifier).to("meta")
    own = cell.view.get("classifier")
    given = {"classifier": _classifier(own)} if isinstance(own, dict) else {}
    rest = {key: each for key, each in cell.view.items() if key not in given}
    return defense, instantiate(rest, defense=defense, max_rows=cell.max_rows, **given)


def _images(cell: Cell) -> DataSet:
    """Two images of the data set's size and number of classes, in place of it."""
    shape, classes = about(cell.dataset, "shape"), cell.dataset.get("classes") or ()
    if shape is None:
        raise ValueError(
            f"dataset={cell.names.dataset} is not here and does not say how large its images are: fetch it, then plan"
        )
    count = int(about(cell.dataset, "class_count") or len(classes) or 10)
    names = tuple(classes) or tuple(f"class {k}" for k in range(count))
    labels = torch.zeros(2, dtype=torch.int64)
    return DataSet(
        cell.names.dataset, "test", torch.rand(2, *shape), labels, torch.arange(2), names, "a photo of a {label}"
    )


def _classifier(config: Config) -> nn.Module:
    """A classifier's architecture, from the function beside its loader that a dry check asks too; else its outline."""
    module = importlib.import_module(config["_target_"].rsplit(".", 1)[0])
    if hasattr(module, "skeleton"):
        with torch.device(
            "cpu" if isinstance(config.get("weights"), str) else "meta"
        ):  # what is here is loaded as it is
            made: nn.Module = module.skeleton(**arguments(config))
        return made.eval().requires_grad_(False).to("meta")
    outline: nn.Module = instantiate(without_numbers(config))
    return outline.to("meta")


def cost(parts: Parts, kind: Kind, size: tuple[int, ...], rows: int) -> Cost:
    """What a row of a kind of pass costs, on images of a shape, where so many go together: they share the memory."""
    part, gradient = kind
    run = _runs(parts, part, size)
    root = nn.ModuleDict({"defense": parts.defense})
    if isinstance(other := getattr(parts.view, "other", None), nn.Module):
        root["other"] = other

    def all_rows() -> None:
        x = torch.empty(rows, *size, device="meta").requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            out = run(x, streams(0, range(rows))["select"].draws())
            if gradient and out.requires_grad:
                torch.autograd.grad(out.sum(), x)

    with Operations() as counter, watched(root, lambda: counter.total) as called:
        held = most_held(all_rows, parts.defense.parameters())
    there = sum(called.operations.values()) or 1  # the way back goes through the networks as the way there did
    gflop: Counter[str] = Counter()
    for name, count in called.operations.items():
        gflop[called.kinds[name]] += count / there * counter.total / rows / 1e9
    return Cost(dict(gflop), held / rows / MIB if gradient else 0.0, called.by_network(rows))


def _runs(parts: Parts, part: str, size: tuple[int, ...]) -> Callable[[Tensor, Noise], Tensor]:
    """How a kind of pass is called. What is looked at has no numbers to be read from: one sentence, one empty mask."""
    defense, view = parts.defense, parts.view
    purifier: Any = defense.purifier

    said = "an image"
    if getattr(purifier, "detector", None) is not None:
        said = encode(said, torch.zeros(size[-2:], dtype=torch.bool))
    looks = purifier.captioner is not None or getattr(purifier, "detector", None) is not None

    def seen(x: Tensor) -> list[str] | None:
        return [said] * len(x) if looks else None

    def purify(each: Defense) -> Callable[[Tensor, Noise], Tensor]:
        return lambda x, noise: each.purify(x, noise, seen(x))

    if part == "purify":
        return purify(defense)
    if part.startswith("purify ("):
        return purify(
            view.differentiated if isinstance(view, StandIn) else Defense(purifier.detached(), defense.classifier)
        )
    table: dict[str, Callable[[Tensor, Noise], Any]] = {
        "classify": lambda x, noise: defense.classify(x),
        "other": lambda x, noise: view.logits(x, noise),
        "path": lambda x, noise: list(purifier.path(x, noise, seen(x)))[-1],
        "caption": lambda x, noise: purifier.captioner.loss(x, [" ".join(["w1"] * WORDS)] * len(x)),
        "caption loss": lambda x, noise: purifier.captioner.loss(x, [" ".join(["w1"] * WORDS)] * len(x)),
        "detect": lambda x, noise: purifier.detector.presence(x),
        "presence": lambda x, noise: purifier.detector.presence(x),
    }
    return table[part]
