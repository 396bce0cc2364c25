"""A cell's config, for whoever starts cells from Python: what `lgap-bench run` composes from the same overrides."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from lgap_bench import CONF
from lgap_bench.cell.config import Cell, resolve
from lgap_bench.cell.form import check_overrides, with_home


def composed(overrides: Sequence[str]) -> DictConfig:
    """The config with Hydra's own part, whose `runtime.choices` name the chosen groups. Raises Hydra's errors."""
    check_overrides(overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", with_home(overrides), return_hydra_config=True)


def resolved(overrides: Sequence[str]) -> Cell:
    """The cell that these overrides mean, not checked: see `prepare` for one that is to be measured."""
    cfg = composed(overrides)
    return resolve(cfg, cfg.hydra.runtime.choices)
