"""The parts of a cell, built and on their device; a classifier that has to be trained first is trained here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lgap_bench.attack.given import Given
from lgap_bench.cell.config import Cell
from lgap_bench.cell.diffusion import guided_by_trained
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.defense import Defense
from lgap_bench.finetune.stage import trained
from lgap_bench.logger.base import SILENT, Loggers
from lgap_bench.metric import clip
from lgap_bench.metric.captions import Captions
from lgap_bench.runtime.device import Device


@dataclass(frozen=True)
class Parts:
    """What a cell is composed of; `measures` see what a defense observed, and add to the record."""

    dataset: Any
    defense: Any
    attack: Any
    view: Any
    threat: Any
    measures: tuple[Any, ...] = ()


def build(cell: Cell, device: Device, loggers: Loggers = SILENT) -> Parts:
    """Instantiate every part from its `_target_`; purifiers bring their prior and captioner inside their own config.

    A stage's training, where its weights are not there yet, is told to the loggers.
    """
    # What can fail quickly is built before a classifier is trained for hours.
    dataset, attack, threat = (instantiate(config) for config in (cell.dataset, cell.attack, cell.threat))
    if isinstance(attack, Given):
        attack.arrange(dataset, cell.n, threat)
    classifier = trained(cell, instantiate(cell.classifier), device, loggers.phase)
    purifier = instantiate(cell.purifier)
    if guided_by_trained(cell):
        purifier.guidance.classifier = classifier
    defense = Defense(purifier, classifier).to(device=device.torch, dtype=getattr(torch, cell.dtype))
    # A memory layout: the convolutions' backward pass takes a fifth less time.
    defense = defense.to(memory_format=torch.channels_last)
    view = instantiate(cell.view, defense=defense, max_rows=cell.max_rows)
    score = clip.load(cell.clip).to(device.torch) if cell.clip else None
    captions = Captions(dataset.classes, dataset.synonyms, dataset.unrelated, score)
    return Parts(dataset, defense, attack, view, threat, (captions,))
