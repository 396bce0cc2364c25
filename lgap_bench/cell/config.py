"""A cell: the resolved config of one number of a table, as frozen and typed data. Without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lgap_bench.cell.about import about, check_about
from lgap_bench.cell.form import check_given, check_groups, check_paths, check_targets, outputs_folder
from lgap_bench.cell.roles import check_roles
from lgap_bench.cell.values import ABOUT, check_limits
from lgap_bench.runtime.sources import at_home

Config = dict[str, Any]  # one part's settings as composed: its own keys, and `_about_`
GROUPS = ("dataset", "classifier", "purifier", "attack", "view", "threat")
SHARING = ("shard", "shards")  # whose work a chunk is: it changes neither the record nor what the record says
ROWS = 128  # of `max_rows: auto` where no prior says how many
STAGES = ("train", "finetune")  # in this order; both are null for a classifier that is used as it comes
# Parts inside a purifier or view, and the group that chooses each.
INNER = {
    "prior": "prior",
    "captioner": "captioner",
    "detector": "detector",
    "guidance": "purifier/guidance",
    "sampler": "purifier/sampler",
}


@dataclass(frozen=True)
class Names:
    """What was chosen of every group; `none` where a stage or subset is not wanted.

    Attributes:
        attack: with `reduced_` before it where the attack has less of something than what bears its name.
        captioner: of the purifier, by its group or, if it was built otherwise, by its code; None without one.
        experiment: `lgap/table1/lgap`, or None.
    """

    dataset: str
    classifier: str
    purifier: str
    attack: str
    view: str
    threat: str
    train: str
    finetune: str
    subset: str
    captioner: str | None
    experiment: str | None


@dataclass(frozen=True)
class Cell:
    """Data set x defense x attack x seed: parts as their configs, everything else as in conf/config.yaml."""

    dataset: Config
    classifier: Config
    purifier: Config
    attack: Config
    view: Config
    threat: Config
    train: Config | None
    finetune: Config | None
    names: Names
    n: int
    seed: int
    score_draws: int
    chunk: int
    max_rows: int
    auto_rows: bool
    clip: str | None
    keep_images: bool
    export: bool
    device: str
    dtype: str
    dtype_of: str
    tf32: bool
    compile: bool
    channels_last: bool
    threads: int | None
    save_every: float | None
    dry: bool
    shard: int | None
    shards: int
    outputs: Path
    numbers: Config  # the top level's keys and limits, as composed

    def stage(self, name: str) -> Config | None:
        """A stage's recipe by name, `train` or `finetune`."""
        return {"train": self.train, "finetune": self.finetune}[name]

    @property
    def stages(self) -> dict[str, Config]:
        """The recipes of the stages that the cell has, in their order."""
        return {name: recipe for name in STAGES if (recipe := self.stage(name)) is not None}

    @property
    def chunks(self) -> int:
        """How many chunks the images make."""
        return math.ceil(self.n / self.chunk)

    @property
    def share(self) -> range:
        """The chunks that are this call's work: those of its shard, every `shards`th, or all."""
        return range(self.shard or 0, self.chunks, self.shards)

    @property
    def title(self) -> str:
        """What a person calls it while it runs."""
        return f"{self.names.purifier} under {self.names.attack}"

    def with_rows(self, rows: int) -> Cell:
        """The cell with another number of rows in a pass, as its config.yaml will have it; the same if it is the same."""
        return (
            self if rows == self.max_rows else replace(self, max_rows=rows, numbers={**self.numbers, "max_rows": rows})
        )

    def plain(self) -> dict[str, Any]:
        """All of it as plain data, for the record's config.yaml: the parts, the numbers and the chosen names.

        Without shards: any of them may write it.
        """
        parts = {key: getattr(self, key) for key in (*GROUPS, *STAGES)}
        names = {f"{key}_name": name for key, name in asdict(self.names).items()}
        numbers = {key: value for key, value in self.numbers.items() if key not in SHARING}
        limits = {key: limit for key, limit in about(self.numbers, "limits", {}).items() if key not in SHARING}
        return {**numbers, ABOUT: {**self.numbers[ABOUT], "limits": limits}, **parts, **names}


def resolve(cfg: DictConfig, choices: Mapping[str, str]) -> Cell:
    """A composed config as a cell; `choices` are Hydra's, the chosen name of every group.

    The top-level `prior` and `captioner` are dropped: what a purifier uses of them stands inside it by interpolation,
    so a part that is not used is neither loaded nor counted in the identity.
    Raises ValueError for what cannot be read as a cell; whether the cell can work is `check`'s.
    """
    raw = _container(cfg, resolve=False)
    check_roles(raw, choices)
    check_groups(raw, GROUPS)
    check_given(raw)
    check_about(raw, choices)
    _check_space(cfg, choices)
    check_limits(_container(cfg.threat), "threat.")  # other parts look up what the norm's name says
    plain = _container(cfg)
    _check_inner_parts(plain)
    check_targets({key: part for key, part in plain.items() if key != "hydra"})
    check_paths(plain)
    plain = _at_home(plain, str(plain["checkpoints"]))
    parts: dict[str, Any] = {group: plain.pop(group) for group in GROUPS}
    # A stage without code is the choice `none`.
    stages: dict[str, Any] = {stage: _if_built(plain.pop(stage)) for stage in STAGES}
    captioner, prior = plain.pop("captioner"), plain.pop("prior", None)
    for key in ("detector", "other", "experiment", "hydra", "logger"):
        plain.pop(key, None)
    names = _names(parts, captioner, choices)
    auto_rows = plain["max_rows"] == "auto"
    if auto_rows:  # the preset's number, until a GPU was asked how many it holds
        plain["max_rows"] = about(prior, "sampling", {}).get("rows", ROWS)
    plain["keep_images"] = plain["keep_images"] or plain["export"]  # of what is not kept nothing can be written
    own = {key: value for key, value in plain.items() if key in Cell.__dataclass_fields__}
    own |= {"outputs": outputs_folder(plain["outputs"]), "auto_rows": auto_rows}
    return Cell(**parts, **stages, names=names, numbers=plain, **own)


def _container(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=resolve)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _at_home(node: Any, checkpoints: str) -> Any:
    """A config whose weights are the folders that a user already has below `checkpoints`, under the names they had before."""
    if isinstance(node, dict):
        return {
            key: at_home(child, checkpoints)
            if key == "weights" and isinstance(child, str)
            else _at_home(child, checkpoints)
            for key, child in node.items()
        }
    return [_at_home(child, checkpoints) for child in node] if isinstance(node, list) else node


def _if_built(recipe: Config) -> Config | None:
    return recipe if "_target_" in recipe else None


def _names(parts: Mapping[str, Config], captioner: Any, choices: Mapping[str, str]) -> Names:
    used = parts["purifier"].get("captioner")
    name = None if used is None else choices["captioner"] if used == captioner else used["_target_"]
    chosen = {group: choices[group] for group in (*GROUPS, *STAGES, "subset")}
    if _reduced(parts["attack"]):
        chosen["attack"] = f"reduced_{choices['attack']}"
    return Names(**chosen, captioner=name, experiment=experiment(choices))


def _reduced(attack: Config) -> bool:
    """Whether an attack has less of something than what bears its name: with fewer steps or draws it is another one."""
    numbers = ((attack[key], number) for key, number in about(attack, "whole", {}).items())
    return any(isinstance(own, int | float) and number is not None and own < number for own, number in numbers)


def _check_space(cfg: DictConfig, choices: Mapping[str, str]) -> None:
    """Refuse a latent prior where a pixel one is needed, before the purifier's keys are looked up in it."""
    needed, space = about(cfg.purifier, "needs", {}).get("space"), about(cfg.prior, "space")
    if needed is not None and needed != space:
        raise ValueError(
            f"purifier={choices['purifier']} needs a {needed} prior, and prior={choices['prior']} is a {space} one: use prior={choices['dataset']}/{needed}"
        )
    seen = about(cfg.view, "needs", {}).get("space")
    if seen not in (None, space):
        raise ValueError(
            f"view={choices['view']} with purifier={choices['purifier']}: it needs a purifier with a {seen} prior, use purifier=diffpure or coup, or another view"
        )


def _check_inner_parts(plain: Mapping[str, Any]) -> None:
    """Refuse a part written as a value: `purifier.sampler=ode` sets the word, `purifier/sampler=ode` chooses the part."""
    for owner in ("purifier", "view"):
        for key in INNER.keys() & plain[owner].keys():
            value, group = plain[owner][key], INNER[key] + ("@view.sampler" if owner == "view" else "")
            if not isinstance(value, dict) and not (value is None and key in ("guidance", "captioner")):
                text = "null" if value is None else value
                raise ValueError(f"{owner}.{key}={text} is no part: choose one by its group, {group}=<name>")
            if isinstance(value, dict) and "_target_" not in value:
                raise ValueError(
                    f"{owner}.{key}={value} has no _target_, so no code: choose a part by its group, {group}=<name>"
                )


def experiment(choices: Mapping[str, str]) -> str | None:
    """The experiment's name, from `experiment=lgap/table1/lgap` or from `+experiment/lgap/table1=lgap`."""
    nested = [
        f"{key.removeprefix('experiment/')}/{name}" for key, name in choices.items() if key.startswith("experiment/")
    ]
    return nested[0] if nested else choices.get("experiment")
