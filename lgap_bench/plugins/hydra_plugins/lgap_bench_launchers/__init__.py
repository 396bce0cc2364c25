"""What Hydra finds of this project: it takes plugins from the namespace `hydra_plugins` alone. The code is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.plugins.search_path_plugin import SearchPathPlugin

from lgap_bench.launcher.local import LocalLauncher
from lgap_bench.launcher.slurm.launcher import SlurmLauncher
from lgap_bench.sweep.sweeper import announced, batches, composed


class Cells(BasicSweeper):
    """Hydra's own sweeper, which also writes down what jobs there are before they start, and takes several grids.

    Args:
        max_batch_size, params: as Hydra's.
        grids: lists of words; the jobs are every combination of each grid with the words of the command line, which win.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        grids: Sequence[Sequence[str]] | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.grids = [list(grid) for grid in grids or ()]

    def split_arguments(  # type: ignore[override]  # static in the base class, and called on the object
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The jobs in batches."""
        return batches(self, overrides, max_batch_size)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every job of the batch, which finds errors early, then announce them."""
        composed(self, batch)
        announced(self.config, batch)


class Installed(SearchPathPlugin):
    """Configs of installed packages: whoever offers parts names its package of YAML files as an entry point."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Behind this project's own, in the order of their names."""
        for entry in sorted(entry_points(group="lgap_bench.conf"), key=lambda each: each.name):
            search_path.append(entry.name, f"pkg://{entry.value}")


class Local(LocalLauncher):
    """`hydra/launcher=local`."""


class Slurm(SlurmLauncher):
    """`hydra/launcher=slurm`, `slurm_debug`."""
