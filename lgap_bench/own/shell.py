"""`lgap-bench eval my_package:build dataset=images path=...`: somebody's own defense from the shell, without a tree or YAML."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from lgap_bench import CONF
from lgap_bench.cell.compose import composed
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.cell.prepare import prepare
from lgap_bench.logger.configured import configured
from lgap_bench.own.entrance import parts_of, subject_of
from lgap_bench.own.ladder import PARTS, climb
from lgap_bench.own.result import Result

SHORT = {"path": "dataset.root", "eps": "threat.eps"}  # what the Python function calls these keys
USAGE = "lgap-bench eval <module>:<name> [dataset=images path=<folder>] [threat=... eps=8/255] [attack=<one instead of the ladder>]"


def main() -> None:
    """Build the defense, climb the ladder, print the result."""
    words = sys.argv[1:]
    if not words or words[0] in ("--help", "-h"):
        print(
            f"{USAGE}\n\n<name> is called without arguments and returns a module or callable from images in [0, 1] to logits,"
        )
        print("or a pair (purifier, classifier). All other words are those of `lgap-bench run`.")
        return
    print(evaluated(words[0], words[1:]))


def evaluated(where: str, words: Sequence[str]) -> Result:
    """The result for what `module:name` builds. Raises ValueError in one line for anything that cannot work."""
    long = _with_threat([_long(word) for word in words])
    defense = built(where)
    alone = [word for word in long if word.startswith("attack=")]

    def compose(more: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
        # The user's attack comes before the ladder's, of which there is then none.
        cfg = composed([*PARTS, *long, *(more if not alone else [w for w in more if not w.startswith("attack=")])])
        return cfg, dict(cfg.hydra.runtime.choices)

    cfg, choices = compose(["attack=none"])
    dataset = instantiate(prepare(cfg, choices).dataset)
    wanted = [alone[0].removeprefix("attack=")] if alone else None
    return climb(
        subject_of(*parts_of(defense), where.rpartition(":")[2]),
        dataset,
        compose,
        wanted,
        lambda: configured(cfg.get("logger")),
    )


def built(where: str) -> Any:
    """What `module:name` gives: an object that is a module already, or what calling it returns."""
    module, _, name = where.partition(":")
    if not module or not name:
        raise ValueError(f"{where} names no defense: write module:name, e.g. my_package.defense:build")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{where}: {module} cannot be imported ({error}): call from the folder that holds it, or install it"
        ) from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{where}: {module} has no {name}: name a function of it that builds the defense")
        found = getattr(found, part)
    from torch import nn

    return found if isinstance(found, nn.Module | tuple) else _call(where, found)


def _call(where: str, build: Any) -> Any:
    if not callable(build):
        raise ValueError(f"{where} is a {type(build).__name__}: name a function that builds the defense, or a module")
    try:
        return build()
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{where}() raised {type(error).__name__} ({text}): it is called without arguments and returns the defense"
        ) from error


def _with_threat(words: list[str]) -> list[str]:
    """A data set that brings no budget of its own takes the common one, linf 8/255."""
    chosen = {key: value for key, _, value in (word.partition("=") for word in words)}
    role = CONF / "threat" / chosen.get("dataset", "digits") / "linf.yaml"
    return words if "threat" in chosen or role.is_file() else ["threat=linf", *words]


def _long(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{SHORT.get(key, key)}{equals}{value}"
