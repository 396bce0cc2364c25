"""`evaluate`: how robust is this module on these images? Contracts, attackers, verdict and records in one call."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from lgap_bench.cell.compose import composed
from lgap_bench.dataset.base import DataSet
from lgap_bench.defense import Defense
from lgap_bench.evaluation.contract import call
from lgap_bench.logger.base import Loggers
from lgap_bench.logger.configured import configured
from lgap_bench.own.borrowed import borrowed
from lgap_bench.own.ladder import LOGITS, PARTS, Subject, climb
from lgap_bench.own.result import Result
from lgap_bench.own.wrapped import Function, answer
from lgap_bench.runtime.device import find_device
from lgap_bench.runtime.errors import sentence

DATA = "lgap_bench.own.live.images"
BASE = ("dataset=images", "dataset.root=.", *PARTS, "captioner=empty")


def evaluate(
    defense: Function | tuple[Function, Function],
    images: Any,
    labels: Any,
    eps: float | str = "8/255",
    *,
    norm: str = "linf",
    classes: Sequence[str] | None = None,
    name: str | None = None,
    attackers: Sequence[str] | None = None,
    seed: int = 0,
    score_draws: int = 10,
    max_rows: int = 128,
    device: str = "auto",
    outputs: str = "outputs",
    progress: bool = True,
) -> Result:
    """Robust accuracy of a defense under ever stronger attackers, with a verdict: is the number to be trusted?

    Args:
        defense: an nn.Module or any callable from images in [0, 1] to logits, normalisation inside; or a pair, purifier
            (images to images) and classifier. A randomized one draws from torch's, numpy's or Python's global generator.
        images: (N, C, H, W) in [0, 1], a tensor or array; labels: (N,) whole numbers.
        eps: the budget in pixel units, `8/255` or a number; `norm` linf or l2.
        classes: one name per class; without them classes are numbered.
        name: what tables call the defense; its class's or function's name without.
        attackers: attack presets, each with words of its own (`full attack.steps=100`), instead of the usual ladder.
        seed: of the attacks' and the defense's draws.
        score_draws: fresh draws per image on which a randomized defense is scored.
        max_rows: images times draws in one pass.
        device: auto, cpu, cuda.
        outputs: records are written below this folder; the same call answers from them.
        progress: whether progress is told on stderr.
    The module is evaluated in eval mode, and is as before afterwards. Raises ValueError in one line for anything that does
    not keep its promises.
    """
    purifier, classifier = parts_of(defense)
    x, y = _images(images), _labels(labels)
    if len(x) != len(y):
        raise ValueError(f"{len(y)} labels for {len(x)} images: give one class number per image, (N,)")
    held = [each for each in (purifier, classifier) if each is not None]
    names = list(classes) if classes is not None else _numbered(held, x, find_device(device).torch)
    dataset = DataSet("images", "test", x, y, torch.arange(len(x)), tuple(names), "{label}")
    node = {
        "_target_": DATA,
        "sha256": _sha256(x, y),
        "split": "test",
        "classes": names,
        "_about_": {"evaluated": len(x), "shape": list(x.shape[1:]), "sizes": {"test": len(x)}},
    }
    settings = {"n": len(x), "seed": seed, "score_draws": score_draws, "max_rows": max_rows, "device": device}
    words = [*BASE, f"threat={norm}", *(f"{key}={value}" for key, value in settings.items())]

    def compose(more: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
        try:
            cfg = composed([*words, *more])
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(sentence(error).removeprefix("lgap-bench: ")) from None
        cfg.dataset, cfg.threat.eps, cfg.outputs = node, eps if isinstance(eps, str) else float(eps), str(outputs)
        return cfg, {**cfg.hydra.runtime.choices, "dataset": "images", "threat": norm}

    def loggers() -> Loggers:
        return configured(composed([]).logger if progress else None)

    if norm not in ("linf", "l2"):
        raise ValueError(f"norm={norm} is not known: use linf or l2")
    return climb(subject_of(purifier, classifier, name), dataset, compose, attackers, loggers)


def parts_of(defense: Any) -> tuple[Function | None, Function]:
    """Purifier and classifier; a pair, one of this project's own defenses, or a classifier alone."""
    if isinstance(defense, Defense):
        return defense.purifier, defense.classifier
    parts = tuple(defense) if isinstance(defense, tuple | list) else (None, defense)
    if len(parts) != 2 or not callable(parts[1]) or not (parts[0] is None or callable(parts[0])):
        given = defense if isinstance(defense, tuple | list) else [defense]
        kinds = ", ".join(type(each).__name__ for each in given)
        raise ValueError(f"defense={kinds}: give a callable from {LOGITS}, or a pair (purifier, classifier)")
    return parts[0], parts[1]


def subject_of(purifier: Function | None, classifier: Function, name: str | None) -> Subject:
    """The parts under their names; `name` is the purifier's where there is one, else the classifier's."""
    if purifier is None:
        return Subject(classifier, _words(name) if name else _name(classifier))
    return Subject(classifier, _name(classifier), purifier, _words(name) if name else _name(purifier))


def _images(images: Any) -> Tensor:
    x = torch.as_tensor(images).detach().cpu()
    if x.dim() != 4 or x.shape[1] not in (1, 3) or not len(x):
        raise ValueError(
            f"images are {tuple(x.shape)}: give (N, C, H, W) with C 1 or 3, channels before height and width"
        )
    return x.float() if x.is_floating_point() else x  # others are refused where their range is checked


def _labels(labels: Any) -> Tensor:
    y = torch.as_tensor(np.asarray(labels) if isinstance(labels, list | tuple) else labels).detach().cpu()
    if y.dim() != 1:
        raise ValueError(f"labels are {tuple(y.shape)}: give one class number per image, (N,)")
    return y.long() if not y.is_floating_point() else y


def _numbered(parts: Sequence[Function], x: Tensor, device: str) -> list[str]:
    """As many classes as there are logits for an image."""
    part, form = f"classifier {_name(parts[-1])}", f"it takes {LOGITS}"
    with borrowed(parts, device), torch.no_grad():
        found = call(part, lambda: answer(parts[-1], x[:1].to(device, copy=True)), form)
    if not isinstance(found, Tensor) or found.dim() != 2:
        given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"{part} returns {given} for one image: {form}")
    return [f"class {number}" for number in range(found.shape[1])]


def _name(part: Any) -> str:
    return _words(getattr(part, "__name__", None) or type(part).__name__)


def _words(name: str) -> str:
    """A name as a record keeps it: letters, digits, `_`, `.` and `-`."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or "defense"


def _sha256(x: Tensor, y: Tensor) -> str:
    digest = hashlib.sha256(f"{tuple(x.shape)} {x.dtype}".encode())
    for tensor in (x, y):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
