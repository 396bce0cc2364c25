"""lgap-bench: how robust is a classifier behind an adversarial purifier?"""

__version__ = "0.2.0"

from importlib import import_module
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent
# The YAML groups: beside the package in a checkout, inside it in a wheel.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
_OFFERED = {"evaluate": "entrance", "load_defense": "plain"}  # name -> module of lgap_bench.own


def __getattr__(name: str) -> Any:
    """`evaluate`, imported when it is asked for: it brings torch, which the command's quick answers do without."""
    if name in _OFFERED:
        # By name: the package's front door is the roof's, and everything below the roof imports the package.
        return getattr(import_module(f"lgap_bench.own.{_OFFERED[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
