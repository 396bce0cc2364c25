"""What Hydra finds of this project: it takes plugins from the namespace `hydra_plugins` alone. The code is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from lgap_bench.launcher.local import LocalLauncher
from lgap_bench.sweep.sweeper import announced


class Cells(BasicSweeper):
    """Hydra's own sweeper, which also writes down what jobs there are before they start."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every job of the batch, which finds errors early, then announce them."""
        super().validate_batch_is_legal(batch)
        announced(self.config, batch)


class Local(LocalLauncher):
    """`hydra/launcher=local`."""
