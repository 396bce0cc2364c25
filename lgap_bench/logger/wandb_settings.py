"""What of a cell goes to Weights & Biases, and where: the keys of `logger=wandb`, and the user's own WANDB_* variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MODES = ("online", "offline", "disabled")
OLD_MODES = {"run": "online", "dryrun": "offline", "true": "online"}  # what older versions of wandb took
TRUE = ("1", "true", "yes", "on")
FORBIDDEN = "/\\#?%:"  # in a project's name: W&B's own rule
LONGEST_PROJECT, LONGEST_TAG = 128, 64
VARIABLES = {  # the user's own word, which wins over a config's
    "mode": "WANDB_MODE",
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "tags": "WANDB_TAGS",
}


@dataclass(frozen=True)
class Settings:
    """The keys of conf/logger/wandb.yaml, checked.

    Attributes:
        mode: online, offline or disabled.
        project, entity: where the runs go; entity None is the account's own.
        group, job_type: of every run; None is the experiment's table, and the purifier.
        tags: beside the data set, the view and the budget.
        paths, host: whether paths and the machine's name are sent.
        artifact: whether the record's files are sent.
        rows: samples in a table, at most.
        limit: seconds that W&B has to take one run.
        wait: seconds that the process waits for W&B at its very end; None: not at all, but 10 in a SLURM job.
    """

    mode: str = "online"
    project: str = "lgap-bench"
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    paths: bool = False
    host: bool = False
    artifact: bool = True
    rows: int = 1000
    limit: float = 120
    wait: float | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON holds it; `Settings.read` is the way back."""
        return {**asdict(self), "tags": list(self.tags)}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Settings:
        """Settings from what `plain` gave; keys of another version are left out."""
        known = {key: value for key, value in plain.items() if key in cls.__dataclass_fields__}
        return cls(**{**known, "tags": tuple(known.get("tags", ()))})

    @property
    def patience(self) -> float:
        """Seconds to wait at the end of the process: a SLURM job takes along what it leaves behind."""
        if self.wait is not None:
            return self.wait
        return 10.0 if "SLURM_JOB_ID" in os.environ else 0.0


def settings(given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Checked settings from a config's keys and the user's WANDB_* variables, which win.

    Raises ValueError, in one line that names the key or the variable, for what W&B would refuse later.
    """
    variables = os.environ if environment is None else environment
    held, names = dict(given), {key: key for key in given}
    for key, variable in VARIABLES.items():
        if variables.get(variable):
            held[key], names[key] = variables[variable], variable
    if names.get("tags") == VARIABLES["tags"]:
        held["tags"] = [tag.strip() for tag in held["tags"].split(",") if tag.strip()]
    if names.get("mode") == VARIABLES["mode"]:
        held["mode"] = OLD_MODES.get(held["mode"].lower(), held["mode"].lower())
    if variables.get("WANDB_DISABLED", "").lower() in TRUE:
        held["mode"] = "disabled"
    for key in held:
        _check(key, names.get(key, key), held[key])
    return Settings.read(held)


def chosen(group: Mapping[str, Any] | None) -> Settings | None:
    """The settings of a composed `logger` group; None where W&B is not among the loggers, or is switched off."""
    entry = (group or {}).get("wandb")
    if entry is None:
        return None
    found = settings({key: value for key, value in entry.items() if not str(key).startswith("_")})
    return None if found.mode == "disabled" else found


def _check(key: str, name: str, value: Any) -> None:
    if key == "mode" and value not in MODES:
        raise ValueError(f"{name}={value} is not known: use {', '.join(MODES)}")
    if key == "project":
        _check_project(name, value)
    if key in ("entity", "group", "job_type") and value is not None:
        _check_word(name, value)
    if key == "tags":
        _check_tags(name, value)


def _check_project(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}={value} names no project: give a name, project=lgap-bench")
    if len(value) > LONGEST_PROJECT:
        raise ValueError(f"{name} has {len(value)} characters, W&B takes {LONGEST_PROJECT}: shorten it")
    if found := [letter for letter in FORBIDDEN if letter in value]:
        raise ValueError(
            f"{name}={value} has {' '.join(found)} in it, which W&B refuses: leave out {' '.join(FORBIDDEN)}"
        )


def _check_word(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_PROJECT or re.search(r"[\n\r]", value):
        raise ValueError(f"{name}={value} is no name: give one of 1 to {LONGEST_PROJECT} characters, or null")
    if name in ("entity", "WANDB_ENTITY") and "/" in value:
        raise ValueError(f"{name}={value} has / in it: give the user or team alone, and the project by project=...")


def _check_tags(name: str, value: Any) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{name}={value} is no list: write tags=[one,two]")
    for tag in value:
        if not isinstance(tag, str) or not 1 <= len(tag) <= LONGEST_TAG:
            raise ValueError(
                f"{name}: the tag {tag} is not 1 to {LONGEST_TAG} characters of text: shorten it, or quote it"
            )
