"""The loggers that a config names: `logger=console`, `logger=none`, `logger=[console,mine]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from lgap_bench.cell.instantiate import check_signature, instantiate
from lgap_bench.cell.values import check_limits
from lgap_bench.logger.base import Logger, Loggers, leave_out


def configured(group: Mapping[str, Any] | None, more: Sequence[Logger] = ()) -> Loggers:
    """One logger per entry of the group, and those that are there already.

    Raises ValueError for an entry that names no code, or keys that its code does not take. A logger that cannot be built
    for any other reason (its server does not answer) is named and left out, as one that fails later is.
    """
    plain = OmegaConf.to_container(group, resolve=True) if isinstance(group, DictConfig) else group
    assert plain is None or isinstance(plain, Mapping)
    found = (_built(str(name), config) for name, config in (plain or {}).items())
    return Loggers([*(logger for logger in found if logger is not None), *more])


def _built(name: str, config: Any) -> Logger | None:
    if not isinstance(config, Mapping) or "_target_" not in config:
        raise ValueError(f"logger.{name}={config} names no code: choose loggers by their group, logger=[console]")
    check_limits(config, f"logger.{name}.")
    check_signature(f"logger.{name}", config)
    try:
        logger: Logger = instantiate(dict(config))
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ValueError):
            raise ValueError(f"logger.{name}: {cause}") from None
        leave_out(name, cause)
        return None
    return logger
