"""A setting that is one of a few words: YAML's limits, the constructor's `Literal` and the refusal say the same."""

import inspect
from typing import Literal, get_type_hints

import pytest
from hydra.utils import get_method
from test_config import GROUPS, choice

from lgap_bench.cell.about import about
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.values import choices
from lgap_bench.runtime.choices import choices_of, require_choice

# Experiments and subsets only set keys of these.
PARTS = [file for file in GROUPS if file.parts[0] not in ("experiment", "subset", "logger")]


def parts(node, path=""):
    """Every config that builds something, with its key; several attacks inside one too."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, child in node.items():
            yield from parts(child, f"{path}.{key}")


def words_of(limit: str) -> set | None:
    """The words that a limit of the form `a | b` allows; None for intervals and for true or false."""
    if not isinstance(limit, str) or any(mark in limit for mark in "[]()"):
        return None
    words = {*choices(limit), *([None] if limit.endswith(" or null") else [])}
    return None if words & {"true", "false"} else words


def literals(target: str) -> dict[str, set]:
    """Parameter -> the words of its `Literal`, for those that have one."""
    code = get_method(target)
    hints = get_type_hints(code.__init__ if inspect.isclass(code) else code)
    return {key: set(choices_of(kind)) for key, kind in hints.items() if choices_of(kind)}


@pytest.mark.parametrize("file", PARTS, ids=lambda file: file.as_posix())
def test_words_in_yaml_are_those_of_the_constructor(file):
    cell = resolved(choice(file))
    for path, node in parts(cell.plain()):
        limits = {key: words_of(limit) for key, limit in about(node, "limits", {}).items()}
        limits = {key: words for key, words in limits.items() if words is not None}
        known = literals(node["_target_"])
        assert limits.keys() == known.keys() & node.keys(), path
        for key, words in limits.items():
            # One word alone pins a preset to what bears its name: autoattack_rand stays `rand`.
            assert words == known[key] or (len(words) == 1 and words < known[key]), f"{path}.{key}"


def test_a_word_that_is_none_of_the_type_is_refused_with_those_that_are():
    kind = Literal["mse", "ssim"] | None
    require_choice("purifier.guidance.kind", None, kind)
    with pytest.raises(ValueError, match=r"^purifier.guidance.kind=l2 is not known: use mse, ssim or null$"):
        require_choice("purifier.guidance.kind", "l2", kind)
    with pytest.raises(ValueError, match=r"^dataset.split=null is not known: use test$"):
        require_choice("dataset.split", None, Literal["test"])
    assert choices_of(str | None) == ()
