"""Public attack libraries as they come from PyPI, and a fence around what they do to the process."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

NOT_AUTOATTACK = (
    "torchattacks.AutoAttack is not AutoAttack: its APGD and FAB run 10 steps instead of 100, its Square another "
    "schedule; use attack=autoattack_standard or attack=autoattack_rand"
)


def autoattack() -> ModuleType:
    """Make `import autoattack` work, and return the module.

    AutoAttack (Croce and Hein 2020) is not on PyPI under its own name; `pyautoattack` is, with the same numerics and
    another API. A real `autoattack` is preferred where one is installed; otherwise `pyautoattack` stands in under that
    name, which is what robustbench imports. Raises ValueError if neither is installed.
    """
    if "autoattack" not in sys.modules and importlib.util.find_spec("autoattack") is None:
        try:
            sys.modules["autoattack"] = importlib.import_module("pyautoattack")
        except ModuleNotFoundError:
            raise ValueError(
                "attack=autoattack_* needs a package that is not installed: pip install pyautoattack"
            ) from None
    return importlib.import_module("autoattack")


def robustbench() -> ModuleType:
    """Import robustbench (Croce et al. 2021) from PyPI alone.

    It imports `autoattack`, which `autoattack()` provides, and `pkg_resources`, which setuptools below 81 provides.
    `load_model` and `clean_accuracy` work; `benchmark` does not under pyautoattack, whose API it does not know.
    """
    autoattack()
    with warnings.catch_warnings():
        # Deprecations inside robustbench and timm: nothing that a user of this project could mend.
        warnings.simplefilter("ignore")
        return importlib.import_module("robustbench")


@contextmanager
def fenced() -> Iterator[None]:
    """Run a library's code and restore what it changes globally.

    AutoAttack reseeds torch's generators in every `perturb`, and its check for dynamic defenses ends by removing the
    trace function, which stops debuggers and coverage.
    """
    import torch

    trace = sys.gettrace()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            sys.settrace(trace)
