"""lgap-bench: how robust is a classifier behind an adversarial purifier?"""

__version__ = "0.2.0"

from pathlib import Path

_PACKAGE = Path(__file__).parent
# The YAML groups: beside the package in a checkout, inside it in a wheel.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
