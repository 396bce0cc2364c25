"""Classifiers of RobustBench (Croce et al. 2021) by their names, from checkpoint files that are already here."""

from __future__ import annotations

import difflib
import pickle
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lgap_bench.runtime import checkpoint, libraries
from lgap_bench.runtime.choices import require_choice
from lgap_bench.runtime.pretrained import require_finite


def model_table(dataset: str, threat_model: str) -> Any:
    """RobustBench's table of a data set and a threat, with the models of the papers that its last release lacks.

    Wang et al. 2023 trained the same architecture that the release builds for Gowal et al. 2021: a WRN-28-10 with SiLU.
    """
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.architectures.dm_wide_resnet import CIFAR10_MEAN, CIFAR10_STD, DMWideResNet, Swish
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    table = model_dicts[BenchmarkDataset(dataset)][ThreatModel(threat_model)]
    if dataset == "cifar10":
        # setdefault below: a later release that has the model itself goes first.
        wang = {"num_classes": 10, "depth": 28, "width": 10, "mean": CIFAR10_MEAN, "std": CIFAR10_STD}
        entry = {"model": lambda: DMWideResNet(activation_fn=Swish, **wang), "gdrive_id": None}
        table.setdefault("Wang2023Better_WRN-28-10", entry)
    return table


def load(name: str, dataset: str, file: str, threat_model: str = "Linf") -> nn.Module:
    """A model of the zoo, images in [0, 1] -> logits, normalisation inside.

    Args:
        name: RobustBench's, e.g. `Standard`, `Carmon2019Unlabeled`.
        dataset: `cifar10`, `cifar100` or `imagenet`.
        file: the checkpoint as RobustBench stores it: `<folder>/<dataset>/<threat_model>/<name>.pt`.
    Raises ValueError if the file does not lie and is not named like that: RobustBench would download another.
    """
    path = Path(file).expanduser()
    if path.parts[-3:] != (dataset, threat_model, f"{name}.pt"):
        raise ValueError(
            f"classifier.file={file} is not .../{dataset}/{threat_model}/{name}.pt: keep RobustBench's layout"
        )
    libraries.robustbench()
    from robustbench.utils import load_model

    _entry(name, dataset, threat_model)
    held = checkpoint.read(file)
    try:
        with torch.serialization.safe_globals(checkpoint.HARMLESS):
            model = load_model(name, str(path.parents[2]), dataset, threat_model)
    except (KeyError, RuntimeError, OSError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"classifier.file={file} is no RobustBench model {name} ({type(error).__name__}, it holds "
            f"{', '.join(str(key) for key in list(held)[:4]) or 'nothing'}): download it again"
        ) from None
    require_finite(model, file)
    return model.eval()


def skeleton(name: str, dataset: str, threat_model: str = "Linf", **_: Any) -> nn.Module:
    """The same architecture with random weights, for dry checks."""
    libraries.robustbench()
    return _entry(name, dataset, threat_model)["model"]()


def _entry(name: str, dataset: str, threat_model: str) -> Any:
    """A model's line of the table. Raises ValueError for a threat or name that it does not have."""
    require_choice("classifier.dataset", dataset, Literal["cifar10", "cifar100", "imagenet"])
    try:
        table = model_table(dataset, threat_model)
    except (KeyError, ValueError):
        raise ValueError(
            f"classifier.threat_model={threat_model}: RobustBench has no models of it on {dataset}: use Linf, L2 or corruptions"
        ) from None
    if name not in table:
        close = difflib.get_close_matches(name, table, 3, 0.4) or list(table)[:3]
        raise ValueError(
            f"classifier.name={name} is no model of RobustBench on {dataset}, {threat_model}: use {', '.join(close)}"
        )
    return table[name]
