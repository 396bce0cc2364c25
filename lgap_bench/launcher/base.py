"""What every launcher of this project holds of Hydra."""

from __future__ import annotations

from typing import Any

from hydra.plugins.launcher import Launcher


class SweepLauncher(Launcher):
    """Base class: what Hydra hands over is kept until `launch`."""

    def __init__(self) -> None:
        self.config: Any = None
        self.hydra_context: Any = None
        self.task_function: Any = None

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """What Hydra hands over before the first launch."""
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function
