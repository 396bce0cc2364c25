"""`_about_`: the one key of a part's YAML that describes the part instead of building it.

Everything else in a part's YAML reaches its constructor and its identity, whatever it is called. The words below `_about_`
are a closed set, and their grammar is checked when a config is composed, so that a misspelt one is not a silent no-op:

    limits         key -> which values it may have: `int [1, 31]`, `(0, 1] or null`, `a | b`
    needs          what the part asks of the others; which keys it may have depends on the group, see NEEDS
    unidentified   keys that change no number: paths, memory that is traded for time
    content        keys that hold folders, which identify by what is in them
    sampling       of a prior: how it is sampled; purifier files refer to these by interpolation
    any_size       of a prior: whether its network takes images of another size than it was trained on
    space          of a prior: pixel, latent or inpaint
    shape, sizes, class_count, evaluated    of a data set: (C, H, W), images per split, classes, the papers' n
    noise_density  of a threat: share of pixels that salt-and-pepper noise strikes
    whole, made_of of an attack: numbers below which it is another attack; the keys that hold attacks
    shown          of a view: its name in tables
    bound          of a view or an attack: why a number from it is no more than an upper bound
    gradient_free  of an attack: whether it searches too, so that a masked gradient does not stop it
    architecture   of a classifier: its name in tables, WRN-28-10
    untrained      of a classifier: whether it is an architecture alone, which `train=...` has to train
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lgap_bench.cell.values import ABOUT, is_limit

NEEDS = {  # group -> the words that its `needs` may have
    "purifier": ("space", "guidance"),
    "view": ("space", "package", "purifier"),
    "attack": ("norm", "view", "eps", "package"),
}
WORDS: dict[str, type | tuple[type, ...]] = {
    "limits": dict,
    "needs": dict,
    "unidentified": list,
    "content": list,
    "sampling": dict,
    "space": str,
    "any_size": bool,
    "shape": list,
    "sizes": dict,
    "class_count": int,
    "evaluated": int,
    "noise_density": (int, float),
    "whole": dict,
    "made_of": list,
    "shown": str,
    "bound": str,
    "gradient_free": bool,
    "architecture": str,
    "untrained": bool,
}

KINDS: dict[Any, str] = {dict: "a mapping", list: "a list", str: "a word", bool: "true or false"}


def about(config: Mapping[str, Any] | None, word: str, default: Any = None) -> Any:
    """What a part's config says of it under one word."""
    held = ((config or {}).get(ABOUT) or {}).get(word)
    return default if held is None else held


def without(node: Any) -> Any:
    """A config as its constructor gets it: `_about_` left out, at any depth."""
    if isinstance(node, dict):
        return {key: without(child) for key, child in node.items() if key != ABOUT}
    return [without(child) for child in node] if isinstance(node, list) else node


def identifying(node: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of one level that belong to the identity: not `_about_`, and none that it calls unidentified."""
    left_out = {ABOUT, *about(node, "unidentified", ()), *about(node, "content", ())}
    return {key: child for key, child in node.items() if key not in left_out}


def check_about(node: Mapping[str, Any], choices: Mapping[str, str], path: str = "") -> None:
    """Raise ValueError, naming the file, for the first `_about_` in a config that is not written as the module says."""
    held = node.get(ABOUT)
    if held is not None:
        _check_words(held, node, _file(path, choices), path.split(".")[0])
    for key, child in node.items():
        if isinstance(child, Mapping) and key not in (ABOUT, "hydra"):
            check_about(child, choices, f"{path}.{key}" if path else key)


def _check_words(held: Any, node: Mapping[str, Any], file: str, group: str) -> None:
    if not isinstance(held, Mapping):
        raise ValueError(f"{file}: {ABOUT}={held} is no mapping: write limits, needs, ... below it")
    for word, value in held.items():
        if word not in WORDS:
            raise ValueError(f"{file}: {ABOUT}.{word} is not known: use {', '.join(WORDS)}")
        interpolated = isinstance(value, str) and value.startswith("${")
        number = isinstance(value, bool) and WORDS[word] is not bool
        if not interpolated and (not isinstance(value, WORDS[word]) or number):
            kind = KINDS.get(WORDS[word], "a number")
            raise ValueError(f"{file}: {ABOUT}.{word}={value} is not {kind}")
    if not 0 < held.get("noise_density", 1) <= 1:
        raise ValueError(
            f"{file}: {ABOUT}.noise_density={held['noise_density']} is not in (0, 1]: it is a share of pixels"
        )
    for key, limit in held.get("limits", {}).items():
        if key not in node:
            raise ValueError(f"{file}: {ABOUT}.limits.{key} limits a key that the part does not have: mend its name")
        if not is_limit(limit):
            raise ValueError(
                f"{file}: {ABOUT}.limits.{key}={limit} is no limit: write int [1, 31], (0, 1] or null, or a | b"
            )
    for key in (
        *held.get("unidentified", ()),
        *held.get("content", ()),
        *held.get("made_of", ()),
        *held.get("whole", ()),
    ):
        if key not in node:
            raise ValueError(f"{file}: {ABOUT} names {key}, a key that the part does not have: mend its name")
    if "needs" in held:
        _check_needs(held["needs"], file, group)


def _check_needs(needs: Mapping[str, Any], file: str, group: str) -> None:
    for word, limit in needs.items():
        if word not in NEEDS.get(group, ()):
            raise ValueError(
                f"{file}: {ABOUT}.needs.{word} is not known: use {' or '.join(NEEDS.get(group, ('none',)))}"
            )
        if not isinstance(limit, Mapping) and not is_limit(limit):
            raise ValueError(f"{file}: {ABOUT}.needs.{word}={limit} is no limit: write a | b or an interval [1, 1]")


def _file(path: str, choices: Mapping[str, str]) -> str:
    """The file that a part was chosen by: `purifier.sampler` -> conf/purifier/ode.yaml's own file."""
    group = path.replace(".", "/")
    if not group:
        return "conf/config.yaml"
    if group in choices:
        return f"conf/{group}/{choices[group]}.yaml"
    owner, _, rest = group.partition("/")
    return f"conf/{owner}/{choices[owner]}.yaml, its {rest.replace('/', '.')}" if owner in choices else f"conf/{group}"
