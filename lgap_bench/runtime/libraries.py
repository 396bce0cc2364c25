"""Public attack libraries as they come from PyPI, which of them are there, and a fence around what they do to the process."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

EXTRAS = {"torchsde": "adjoint"}  # package -> the extra that brings it, where their names differ
NOT_AUTOATTACK = (
    "torchattacks.AutoAttack is not AutoAttack: its APGD and FAB run 10 steps instead of 100, its Square another "
    "schedule; use attack=autoattack_standard or attack=autoattack_rand"
)


def there(package: str) -> bool:
    """Whether a package is installed; a folder of that name in the working directory is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def require(package: str, what: str) -> None:
    """Raise ValueError, naming the extra that brings it, if `what` needs an optional package that is not installed."""
    if not there(package):
        raise ValueError(f"{what} needs {package}: pip install 'lgap-bench[{EXTRAS.get(package, package)}]'")


def torchattacks() -> ModuleType:
    """Import torchattacks (Kim 2020), which is optional. Raises ValueError with the command that brings it."""
    require("torchattacks", "this attack")
    return importlib.import_module("torchattacks")


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


def square() -> Any:
    """The authors' Square, a class; in linf it and torchattacks' port give the same images to the last bit."""
    return importlib.import_module(f"{autoattack().__name__}.square").SquareAttack


def robustbench() -> ModuleType:
    """Import robustbench (Croce et al. 2021) from PyPI alone.

    It imports `autoattack`, which `autoattack()` provides, and `pkg_resources`, which setuptools below 81 provides.
    `load_model` and `clean_accuracy` work; `benchmark` does not under pyautoattack, whose API it does not know.
    Raises ValueError with the command that brings what is missing.
    """
    require("robustbench", "a classifier of RobustBench or with its architectures")
    if not there("pkg_resources"):
        raise ValueError(
            "robustbench needs pkg_resources, which setuptools 81 removed: pip install 'lgap-bench[robustbench]'"
        )
    autoattack()
    with warnings.catch_warnings():
        # Deprecations inside robustbench and timm: nothing that a user of this project could mend.
        warnings.simplefilter("ignore")
        return importlib.import_module("robustbench")


@contextmanager
def fenced(notes: list[str] | None = None) -> Iterator[None]:
    """Run a library's code, restore what it changes globally, and keep what it warns of.

    `notes` takes its warnings, raised or logged, one line each: on the screen nobody would see them among progress lines.
    What AutoAttack says of dynamic defenses is left out: it takes any function that calls `no_grad` for one.

    AutoAttack reseeds torch's generators in every `perturb`, and its check for dynamic defenses ends by removing the
    trace function, which stops debuggers and coverage.
    """
    import torch

    trace = sys.gettrace()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    handler = _Notes([] if notes is None else notes)
    logger = logging.getLogger("auto-attack")
    logger.addHandler(handler)
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            sys.settrace(trace)
            logger.removeHandler(handler)
            for warning in caught:
                # Deprecations are between the library and torch; `UserWarning` and plain `Warning` are for its user.
                if not issubclass(warning.category, DeprecationWarning | FutureWarning | ImportWarning):
                    handler.take(str(warning.message))


class _Notes(logging.Handler):
    """Warnings as notes: one line each, none twice."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self.take(record.getMessage())

    def take(self, text: str) -> None:
        """Keep a warning."""
        line = " ".join(text.split())
        if line not in self.notes and "dynamic" not in line:
            self.notes.append(line)
