"""A function or class of somebody's own package by its dotted name, as a config gives it. Without torch."""

from __future__ import annotations

import importlib
from typing import Any


def dotted(name: str) -> str:
    """`package.module:build`, as entry points write it, is `package.module.build`."""
    return name.replace(":", ".")


def imported(name: str, key: str) -> Any:
    """What a dotted name means: a module, and an attribute of it.

    Raises ValueError naming `key` where there is none, and where the module fails while it is imported.
    """
    module, _, attribute = dotted(name).rpartition(".")
    mend = "name a function or class, my_package.my_module.build, of an installed package or of one in this folder"
    if not module or not attribute:
        raise ValueError(f"{key}={name} names no code: {mend}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{key}={name}: {module} imports {error.name}, which is not installed: install it"
            ) from None
        raise ValueError(f"{key}={name} names no code (no module {error.name}): {mend}") from None
    except AttributeError as error:
        raise ValueError(f"{key}={name} names no code ({error}): {mend}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{key}={name}: {module} raised {type(error).__name__} while it was imported ({reason}): mend its code; HYDRA_FULL_ERROR=1 shows where"
        ) from error
