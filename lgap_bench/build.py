"""The parts of a cell, built and on their device; a classifier that has to be trained first is trained here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lgap_bench.attack.problem import Parts
from lgap_bench.cell.about import about
from lgap_bench.cell.config import Cell, Config
from lgap_bench.cell.diffusion import guided_by_trained
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.cell.rules import paths
from lgap_bench.dataset.base import DataSet
from lgap_bench.dataset.listing import require_same_order
from lgap_bench.defense import Defense
from lgap_bench.detector.base import decode, require_names
from lgap_bench.finetune.stage import trained
from lgap_bench.logger.base import SILENT, Loggers
from lgap_bench.metric import clip
from lgap_bench.metric.captions import Captions
from lgap_bench.metric.labels import Labels, best_threshold
from lgap_bench.metric.regions import Regions
from lgap_bench.noise import streams
from lgap_bench.purifier.base import Purifier
from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.device import Device
from lgap_bench.runtime.errors import in_user_code, is_user_error
from lgap_bench.runtime.fitting import free_memory, peak_of, rows_that_fit

CHOSEN_ON, BATCH = 512, 64  # validation images that a threshold is chosen on, and how many at once
FORWARD = ("none", "query")  # views that take no gradient
LARGE = 100 * 2**20  # bytes of model files whose loading is announced


def build(cell: Cell, device: Device, loggers: Loggers = SILENT, live: Mapping[str, Any] | None = None) -> Parts:
    """Instantiate every part from its `_target_`; purifiers bring their prior and captioner inside their own config.

    A stage's training, where its weights are not there yet, is told to the loggers. `live`: data set, classifier or purifier
    that exist already.
    """
    # What can fail quickly is built before a classifier is trained for hours.
    names = cell.names
    if any(isinstance(cell.dataset.get(key), str) for key in about(cell.dataset, "content", ())):
        loggers.phase(f"{cell.title}: reading the images of dataset={names.dataset}")
    there = live or {}
    dataset = there["dataset"] if "dataset" in there else _built("dataset", names.dataset, cell.dataset)
    attack, threat = _built("attack", names.attack, cell.attack), _built("threat", names.threat, cell.threat)
    if hasattr(attack, "arrange"):  # it holds images of its own, and asks whose they are before anything is trained
        attack.arrange(dataset, cell.n, threat)
    _announce(cell, loggers)
    classifier, purifier = (
        there[group] if group in there else _built(group, name, config)
        for group, name, config in (
            ("classifier", names.classifier, cell.classifier),
            ("purifier", names.purifier, cell.purifier),
        )
    )
    _check_modules(cell, purifier, classifier)
    _check_order(cell, dataset, classifier)
    if (detector := getattr(purifier, "detector", None)) is not None:
        require_names(
            detector, dataset.classes, f"detector={cell.purifier['detector'].get('weights', cell.names.purifier)}"
        )
    classifier = trained(cell, classifier, device, loggers.phase, loggers.step)
    if guided_by_trained(cell):
        purifier.guidance.classifier = classifier
    defense = _placed(cell, Defense(purifier, classifier), device)
    if cell.auto_rows and device.torch.startswith("cuda"):
        loggers.phase(f"{cell.title}: trying how many rows the GPU holds in a pass")
        cell = cell.with_rows(_rows(cell, defense, dataset, device))
        loggers.phase(f"{cell.title}: max_rows={cell.max_rows}")
    view = _built("view", names.view, cell.view, defense=defense, max_rows=cell.max_rows)
    score = clip.load(cell.clip).to(device.torch) if cell.clip else None
    cut = getattr(getattr(purifier, "prior", None), "cut", None)  # a prior that reads captions says which it cuts
    captions = Captions(dataset.classes, dataset.synonyms, dataset.unrelated, score, cut, purifier.words)
    measures = (captions, *_of_regions(purifier), *_of_labels(cell, dataset, defense, device))
    return Parts(dataset, defense, attack, view, threat, measures)


def _placed(cell: Cell, defense: Defense, device: Device) -> Defense:
    """The defense on its device, in its precision and memory layout; compiled where that is asked for."""
    dtype = getattr(torch, cell.dtype)
    defense = defense.to(device=device.torch, dtype=dtype if cell.dtype_of == "all" else None)
    if cell.dtype_of == "prior":
        defense.purifier.prior.to(dtype=dtype)
    if cell.channels_last:
        defense = defense.to(memory_format=torch.channels_last)
    if cell.compile:
        prior = getattr(defense.purifier, "prior", None)
        for network in (*getattr(prior, "networks", ()), defense.classifier):
            network.compile()
    return defense


def _rows(cell: Cell, defense: Defense, dataset: DataSet, device: Device) -> int:
    """`max_rows: auto` on a GPU: as many as the exact gradient's pass leaves room for, or a forward pass where none is taken."""

    def run(rows: int) -> None:
        x = dataset.images[:1].to(device.torch).repeat(rows, 1, 1, 1)
        noise = streams(cell.seed, dataset.ids[:1].tolist() * rows)["select"].draws()
        gradient = cell.names.view not in FORWARD
        with torch.set_grad_enabled(gradient):
            logits = defense(x.requires_grad_(gradient), noise, defense.observe(x, noise))
            if gradient:
                logits.sum().backward()

    run(1)  # what a first pass sets up is there afterwards
    return rows_that_fit(lambda rows: peak_of(lambda: run(rows), device.torch), free_memory(device.torch))


def _of_regions(purifier: Purifier) -> tuple[Regions, ...]:
    """The measure of a purifier that detects."""
    return () if getattr(purifier, "detector", None) is None else (Regions(decode),)


@torch.no_grad()
def _of_labels(cell: Cell, dataset: DataSet, defense: Defense, device: Device) -> tuple[Labels, ...]:
    """The measure of images with several labels; its threshold is chosen on clean validation images, for the bare classifier.

    One threshold for all purifiers of a classifier, so that their precisions can be compared.
    """
    if dataset.present is None:
        return ()
    whole = {"subset": None} if "subset" in cell.dataset else {}  # subsets are of the test split
    held: DataSet = _built("dataset", cell.names.dataset, {**cell.dataset, "split": "validation", **whole})
    rows = range(0, min(len(held), CHOSEN_ON), BATCH)
    scores = [defense.classify(held.images[row : row + BATCH].to(device.torch)).float().cpu() for row in rows]
    assert held.present is not None
    truth = held.present[: BATCH * len(rows)]
    return (Labels(dataset.classes, best_threshold(torch.cat(scores).numpy()[: len(truth)], truth.numpy())),)


def _announce(cell: Cell, loggers: Loggers) -> None:
    """Say that models are loaded, where that takes a while; those of the miniature are there at once."""
    named = {path for key in ("weights", "file") for path in paths([cell.classifier, cell.purifier, cell.view], key)}
    size = sum(weight_files.size(path) for path in named)
    if size > LARGE:
        loggers.phase(f"{cell.title}: loading {size / 2**30:.1f} GiB of models")


def _built(group: str, name: str, config: Config, **given: Any) -> Any:
    """A part from its config; whatever its constructor raises becomes one line with the part's name.

    HYDRA_FULL_ERROR=1 shows the traceback.
    """
    try:
        return instantiate(config, **given)
    except SystemExit as error:
        raise ValueError(
            f"{group}={name}: its constructor ends the process (exit {error.code}): raise an error instead"
        ) from error
    except Exception as error:
        cause = error.__cause__ or error
        if is_user_error(error) and not in_user_code(cause):
            raise
        raise ValueError(
            f"{group}={name}: its constructor raised {type(cause).__name__} ({' '.join(str(cause).split())[:200]}): mend its code; HYDRA_FULL_ERROR=1 shows where"
        ) from error


def _check_modules(cell: Cell, purifier: Any, classifier: Any) -> None:
    """Refuse parts that are no modules, or whose constructor forgot its base class's."""
    for group, name, part, base in (
        ("purifier", cell.names.purifier, purifier, Purifier),
        ("classifier", cell.names.classifier, classifier, nn.Module),
    ):
        if not isinstance(part, base):
            raise ValueError(
                f"{group}={name}: {type(part).__name__} is no {base.__name__}: derive its class from {base.__module__}.{base.__name__}"
            )
        if "_modules" not in vars(part):
            raise ValueError(
                f"{group}={name}: {type(part).__name__} does not call super().__init__(): add it, as its first line"
            )


def _check_order(cell: Cell, dataset: DataSet, classifier: nn.Module) -> None:
    """Refuse a classifier that says in `classes` what its logits mean, and means others than the data set."""
    own = getattr(classifier, "classes", None)
    if isinstance(own, list | tuple) and all(isinstance(word, str) for word in own):
        require_same_order(dataset.classes, own, f"classifier={cell.names.classifier}")
