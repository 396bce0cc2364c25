"""A classifier of one's own: whatever a Python function returns that maps images in [0, 1] to logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lgap_bench.runtime.imported import imported


class Called(nn.Module):
    """A plain function, images (B, C, H, W) in [0, 1] -> logits (B, classes), as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.classes = getattr(function, "classes", None)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def load(build: str, file: str | None = None, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """What `build(**arguments)` returns: an nn.Module, or a function; it normalises its input itself.

    Args:
        build: `my_package.my_module.build` or `my_package.my_module:build`, of an installed package or of one in the
            working directory. It may also name a module object that is there already.
        file: a file of weights, handed to `build` as `file`. Files that are named here identify the record by content.
        arguments: more keyword arguments of `build`.
    A module that has `classes`, the names of its logits, is held against the data set's. Returned in eval mode.
    Raises ValueError for a name without code and for a result that cannot be called.
    """
    given = {**(arguments or {}), **({} if file is None else {"file": file})}
    found = imported(build, "classifier.build")
    made = found if isinstance(found, nn.Module) and not given else found(**given)
    if isinstance(made, type) or not callable(made):
        raise ValueError(
            f"classifier.build={build} returns {getattr(made, '__name__', type(made).__name__)}: return an nn.Module, or a function from images to logits"
        )
    return (made if isinstance(made, nn.Module) else Called(made)).eval()
