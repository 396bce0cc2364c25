"""The ladder of attackers for somebody's defense: from one who knows the classifier alone to the worst of many attacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from lgap_bench.dataset.base import DataSet
from lgap_bench.logger.base import Loggers
from lgap_bench.measure import run_cell
from lgap_bench.own.asked import Asked, ask
from lgap_bench.own.borrowed import borrowed, online, precision
from lgap_bench.own.result import Result, Rung
from lgap_bench.own.wrapped import Function, OwnClassifier, OwnPurifier, Plain
from lgap_bench.purifier.base import Purifier
from lgap_bench.runtime.device import find_device

PART = "lgap_bench.own.live.part"
# What is composed until the live parts take its place: a data set of one's own brings neither.
PARTS = ("purifier=none", "classifier=callable", f"classifier.build={PART}")
LOGITS, IMAGES = "images in [0, 1] (B, C, H, W) to logits (B, classes)", "images in [0, 1] to images of the same size"
NO_GRADIENT = (
    "{part} has no gradient (torch.no_grad, detach, numpy or PIL inside): attackers that need one are left out, so the "
    "number is no more than an upper bound; call its parts without no_grad{split}"
)
Composed = Callable[[Sequence[str]], tuple[DictConfig, dict[str, str]]]  # words -> config, Hydra's choices


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a classifier, behind a purifier or bare, under the names that records give them."""

    classifier: Function
    classifier_name: str
    purifier: Function | None = None
    purifier_name: str = "none"

    @property
    def parts(self) -> list[Function]:
        """The purifier, if there is one, and the classifier."""
        return [each for each in (self.purifier, self.classifier) if each is not None]


def climb(
    subject: Subject, dataset: DataSet, compose: Composed, wanted: Sequence[str] | None, loggers: Callable[[], Loggers]
) -> Result:
    """Measure every rung as a cell with a record; the same call answers from it.

    `wanted`: attack presets, each with its own words behind it (`full attack.steps=100`); None chooses by what the defense has.
    Raises ValueError in one line for parts that do not keep their promises.
    """
    device = find_device(str(compose(["attack=none"])[0].device))
    with online(), borrowed(subject.parts, device.torch):
        few = dataset.images[: min(8, len(dataset))].to(device.torch)
        about = _asked(subject, few)
        _check_classes(subject, about["classifier"], dataset)
        live = {"dataset": dataset, "classifier": OwnClassifier(subject.classifier, about["classifier"].randomized)}
        if subject.purifier is not None:
            live["purifier"] = _purifier(subject.purifier, about["purifier"])
        records = []
        for rung in _rungs(about) if wanted is None else [Rung.of(each) for each in wanted]:
            cfg, choices = compose(["dtype=" + precision(subject.parts), *rung.words])
            _put(cfg, choices, subject, about)
            told = loggers()
            try:
                records.append((rung, run_cell(cfg, choices, (), told, live)))
            finally:
                told.closed()
    return Result(subject.classifier_name, subject.purifier_name, tuple(records), _notes(about))


def _asked(subject: Subject, few: Any) -> dict[str, Asked]:
    """What each part is."""
    found = {"classifier": ask(f"classifier {subject.classifier_name}", subject.classifier, few, f"it takes {LOGITS}")}
    if subject.purifier is not None:
        own = subject.purifier
        plain = Plain(own) if isinstance(own, Purifier) else own
        found["purifier"] = ask(f"purifier {subject.purifier_name}", plain, few, f"it takes {IMAGES}")
    return found


def _purifier(function: Function, about: Asked) -> Purifier:
    return function if isinstance(function, Purifier) else OwnPurifier(function, about.randomized)


def _check_classes(subject: Subject, about: Asked, dataset: DataSet) -> None:
    if about.shape != (len(dataset.classes),):
        raise ValueError(
            f"classifier {subject.classifier_name} returns {about.shape} per image, and there are {len(dataset.classes)} classes: it takes {LOGITS}"
        )


def _rungs(about: Mapping[str, Asked]) -> list[Rung]:
    """Who attacks: those for whom the defense has what they need."""
    if not about["classifier"].differentiable:
        return [Rung("a search without gradient", ("attack=square", "attack.n_queries=1000", "attack.draws=4"))]
    if "purifier" not in about:
        return [
            Rung("PGD, exact gradient", ("attack=full",)),
            Rung("worst of many attacks", ("attack=full_ensemble",)),
        ]
    known = [Rung("who knows the classifier alone", ("attack=pgd",)), Rung("BPDA", ("attack=bpda",))]
    if not about["purifier"].differentiable:
        return [*known, Rung("worst of many attacks, BPDA", ("attack=full_ensemble", "view=bpda"))]
    return [*known, Rung("exact gradient", ("attack=full",)), Rung("worst of many attacks", ("attack=full_ensemble",))]


def _notes(about: Mapping[str, Asked]) -> tuple[str, ...]:
    """What a reader has to know beside the verdicts."""
    split = (
        "" if "purifier" in about else ", or give purifier and classifier apart: evaluate((purifier, classifier), ...)"
    )
    return tuple(
        NO_GRADIENT.format(part=f"the {group}", split=split) for group, each in about.items() if not each.differentiable
    )


def _put(cfg: DictConfig, choices: dict[str, str], subject: Subject, about: Mapping[str, Asked]) -> None:
    """The parts into a composed config: what identifies them, and their names."""
    cfg.classifier = {"_target_": PART, "sha256": about["classifier"].sha256}
    choices["classifier"] = subject.classifier_name
    if subject.purifier is not None:
        cfg.purifier = {"_target_": PART, "sha256": about["purifier"].sha256}
        choices["purifier"] = subject.purifier_name
