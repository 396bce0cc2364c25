"""docs/reference.md: every group, part and key of conf/, with its default, its limits and the comment beside it.

    python -m scripts.reference            # write the page
    python -m scripts.reference --check    # exit 1 when it is stale

The page is made from the YAML files as they are written, not from a composed config: defaults stand there as a reader
finds them in the file, interpolations included.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "reference.md"
DESCRIBING = ("defaults", "hydra")  # they set no key of the part
LISTED = ("experiment", "table")  # overlays and published values: named, their keys left to the files
LONGEST = 60  # characters of a default; the thousand class names of a data set are not read here
TITLES = {
    "dataset": "the images, and by their name every other part's default",
    "subset": "a paper's own test images",
    "train": "training a classifier from scratch before the cell",
    "finetune": "fine-tuning the classifier before the cell",
    "classifier": "the network that is defended",
    "captioner": "where a purifier's text comes from",
    "detector": "what finds objects, for purifiers with a region",
    "prior": "the diffusion model that a purifier uses",
    "purifier": "what cleans an image before it is classified",
    "purifier/guidance": "a term added to the prior's score",
    "purifier/sampler": "how a pixel purifier walks back to a clean image",
    "threat": "how far the attacker may move an image",
    "view": "what the attacker may differentiate",
    "attack": "the attacker's algorithm",
    "precision": "what the networks compute in; each file sets keys of the cell itself",
    "logger": "who is told how a cell goes",
    "hydra/launcher": "where the jobs of a sweep (`-m`) run; `basic`, which is Hydra's own, does one after the other",
    "hydra/sweeper": "how the jobs of a sweep are made; there is nothing to choose here",
    "experiment": "one row of a paper's table, or one line of the demo",
    "table": "a table or figure: its rows and the published values, for `lgap-bench report table=...`",
}
HEAD = """# Reference: every group, part and key

What may stand on the command line of `lgap-bench run`. This page is generated from `conf/`; change the files there, then run

    make reference

A **group** is a folder of `conf/`. A **part** is a file in it, chosen by `group=part`. A **key** is a line of that file, set
by `group.key=value`:

    lgap-bench run purifier=coup purifier.guidance.weight=10 attack=full attack.steps=40

- An empty cell in the column "allowed" means that the part's code checks the value.
- A default such as `${prior...}` is taken from another part.
- A part that says "as `pgd`" has all keys of `pgd`; only those that differ are listed.
"""


@dataclass(frozen=True)
class Key:
    """One key of a part as its file has it: the name that sets it, default as text, allowed values, the comment beside it."""

    name: str
    default: str
    allowed: str
    comment: str


@dataclass(frozen=True)
class Part:
    """One YAML file: its name in the group, its first sentence, its code, the parts it starts from, and its own keys."""

    name: str
    about: str
    target: str
    bases: tuple[str, ...]
    needs: Mapping[str, Any]
    keys: list[Key] = field(default_factory=list)


def first_sentence(text: str) -> str:
    """The comment at the top of a file, up to its first full stop; the whole of it where it has none."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(("# @package", "# lgap-bench ")):
            lines.append(line.lstrip("# "))
    return re.split(r"(?<!al)\.\s+(?=[A-Z0-9`])", " ".join(lines))[0].rstrip(".")


@cache
def read(path: Path) -> dict[str, Any]:
    """The file's values."""
    return yaml.safe_load(path.read_text()) or {}


def bases(path: Path) -> list[Path]:
    """The files that a file starts from, as `defaults` names them: `pgd` beside it, `/prior/cifar10/pixel@_here_` anywhere."""
    named = [entry for entry in read(path).get("defaults", []) if isinstance(entry, str)]
    named = [entry.removesuffix("@_here_") for entry in named if entry != "_self_"]
    files = [CONF / f"{entry[1:]}.yaml" if entry[0] == "/" else path.parent / f"{entry}.yaml" for entry in named]
    return [file for file in files if file.exists()]


def described(path: Path, word: str) -> dict[str, Any]:
    """One word of `_about_`, with what the file's bases say of it below what the file says itself."""
    held: dict[str, Any] = {}
    for base in bases(path):
        held |= described(base, word)
    return held | ((read(path).get("_about_") or {}).get(word) or {})


def _inner_limits(path: Path) -> dict[str, Any]:
    """The limits of the parts that a file names, as loggers' files do: `wandb.mode`."""
    inner = {
        name: (node.get("_about_") or {}).get("limits", {})
        for name, node in read(path).items()
        if isinstance(node, dict)
    }
    return {f"{name}.{key}": limit for name, limits in inner.items() for key, limit in limits.items()}


def package(text: str, group: Path) -> str:
    """What stands before a file's keys on the command line: the group's name, or what `@package` says instead."""
    said = re.match(r"# @package (\S+)", text)
    named = said[1] if said else ".".join(group.relative_to(CONF).parts)
    return f"{named}." if named and named != "_global_" else ""


def keys(path: Path, group: Path, limits: Mapping[str, str]) -> list[Key]:
    """The file's own keys in its order, each by the whole name that sets it."""
    text = path.read_text()
    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return []
    above = package(text, group)
    found = _walk(root, text, text.splitlines(), "")
    return [Key(f"{above}{name}", default, str(limits.get(name, "")), comment) for name, default, comment in found]


def _walk(node: yaml.MappingNode, text: str, lines: list[str], above: str) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        if key.value == "_about_" and isinstance(value, yaml.MappingNode):
            value.value = [said for said in value.value if said[0].value == "sampling"]  # purifiers refer to it
        elif key.value.startswith("_") or (not above and key.value in DESCRIBING):
            continue
        name = f"{above}{key.value}"
        if isinstance(value, yaml.MappingNode) and not value.flow_style and value.value:
            yield from _walk(value, text, lines, f"{name}.")
            continue
        written = text[value.start_mark.index : value.end_mark.index].strip()
        end = value.end_mark
        rest = lines[end.line][end.column :] if end.line < len(lines) and end.column else ""
        yield name, " ".join(written.split()).replace("[ ", "["), rest.partition("#")[2].strip()


def part(path: Path, group: Path) -> Part:
    """One file, read."""
    start = tuple(_name(base, group) for base in bases(path))
    target = str(read(path).get("_target_", ""))
    sentence = first_sentence(path.read_text())
    held = keys(path, group, described(path, "limits") | _inner_limits(path))
    return Part(_name(path, group), sentence, target, start, described(path, "needs"), held)


def _name(path: Path, group: Path) -> str:
    within = path.is_relative_to(group)
    return path.relative_to(group if within else CONF).with_suffix("").as_posix()


def parts(group: str) -> list[Part]:
    """The files of a group, those of groups below it left out."""
    folder = CONF / group
    inner = [CONF / other for other in TITLES if other.startswith(f"{group}/")]
    files = [path for path in sorted(folder.rglob("*.yaml")) if not any(path.is_relative_to(below) for below in inner)]
    return [part(path, folder) for path in files]


def cell(text: str, code: bool = False) -> str:
    """A table's cell: bars escaped, long defaults cut."""
    if code and len(text) > LONGEST:
        text = f"{text[:LONGEST]} ..."
    text = text.replace("|", "\\|")
    return f"`{text}`" if code and text else text


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A Markdown table and the blank line after it."""
    lines = [f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *rows)]
    return [*lines, ""]


def key_table(held: list[Key]) -> list[str]:
    """The keys of one part."""
    rows = [(f"`{k.name}`", cell(k.default, True), cell(k.allowed, True), cell(k.comment)) for k in held]
    return table(("key", "default", "allowed", "meaning"), rows)


def section(group: str) -> list[str]:
    """One group: its choices, then the keys of each part that has some."""
    held = parts(group)
    lines = [f"## {group}", "", f"{TITLES[group][0].upper()}{TITLES[group][1:]}.", ""]
    lines += table(("choice", "what it is"), [(f"`{p.name}`", cell(p.about)) for p in held])
    for p in held if group not in LISTED else []:
        if p.keys or p.needs:
            lines += _part(group, p)
    return lines


def _part(group: str, p: Part) -> list[str]:
    head = f"### `{group}={p.name}`"
    start = f"As {', '.join(f'`{base}`' for base in p.bases)}. " if p.bases else ""
    code = f"Code: `{p.target}`. " if p.target else ""
    needs = "; ".join(f"`{word}` {_need(limit)}" for word, limit in p.needs.items())
    said = f"{start}{code}{f'Needs of the other parts: {needs}.' if needs else ''}".strip()
    return [head, "", *([said, ""] if said else []), *(key_table(p.keys) if p.keys else [])]


def _need(limit: Any) -> str:
    return ", ".join(f"`{k}: {v}`" for k, v in limit.items()) if isinstance(limit, Mapping) else f"`{limit}`"


def page() -> str:
    """The whole page."""
    config = part(CONF / "config.yaml", CONF)
    links = [f"[{group}](#{group.replace('/', '')})" for group in TITLES]
    lines = [HEAD, f"Groups: {', '.join(links)}.", "", "## The cell itself", ""]
    lines += ["Keys that belong to no group.", "", *key_table(config.keys)]
    for group in TITLES:
        lines += section(group)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the page, or say that it is stale."""
    parser = argparse.ArgumentParser(description="docs/reference.md from conf/")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is stale")
    if parser.parse_args().check:
        if not PAGE.exists() or PAGE.read_text() != page():
            sys.exit("docs/reference.md is not what conf/ says: run make reference")
        return
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
