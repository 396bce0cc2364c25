"""Roles that a data set need not bring: its classifier, captioner, prior, detector, threat. Without torch.

conf/config.yaml composes each by the data set's name (`${dataset}/latent`) and leaves out what is not there. So a data set of
one's own is one file, and a part is missed only where a cell uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Group, as Hydra's choices name it -> where it stands in a config, and the roles that config.yaml and purifiers ask for.
ROLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "classifier": ("classifier", ("standard",)),
    "captioner": ("captioner", ("blip",)),
    "prior": ("prior", ("latent", "pixel", "inpaint")),
    "detector": ("detector", ("standard",)),
    "classifier@other": ("other", ("other",)),
    "threat": ("threat", ("linf",)),
}
ALWAYS = {  # what every cell has -> what to write where the data set has none
    "classifier": "classifier=callable classifier.build=my_package.my_module.build, or classifier=torchvision, timm, state_dict",
    "threat": "threat=linf threat.eps=8/255, or threat=l2 threat.eps=0.5",
}
INSIDE = {  # what a purifier or view may use -> what to write
    "prior": "use another data set's, prior=cifar10/latent or prior=cifar10/pixel, or purifier=none",
    "captioner": "use captioner=empty for no words, or another data set's, captioner=cifar10/blip",
    "detector": "use another data set's, detector=coco/standard",
}


def check_roles(raw: Mapping[str, Any], choices: Mapping[str, str]) -> None:
    """Raise ValueError for a choice that does not exist, and for a role that is missing and used.

    `raw` is the config before interpolations are looked up, `choices` are Hydra's.
    """
    for group, (key, roles) in ROLES.items():
        choice = choices.get(group)
        own = [f"{choices['dataset']}/{role}" for role in roles]
        if choice is not None and not _there(raw, key) and choice not in own:
            raise ValueError(
                f"Could not find '{group.partition('@')[0]}/{choice}'"
            )  # `errors.sentence` lists what is there
    for key, mend in ALWAYS.items():
        if raw.get(key) is None and key in choices:
            raise ValueError(f"{key}: dataset={choices['dataset']} brings none (no {choices[key]}): choose {mend}")
    for key, mend in INSIDE.items():
        for owner in ("purifier", "view", "classifier"):
            if not _there(raw, key) and f"${{{key}}}" in _text(raw.get(owner)):
                raise ValueError(
                    f"{owner}={choices[owner]} needs a {key}, and dataset={choices['dataset']} brings none (no {choices[key]}): {mend}"
                )


def _there(raw: Mapping[str, Any], key: str) -> bool:
    """Whether a part was composed: one without code is the top level's own placeholder."""
    part = raw.get(key)
    return isinstance(part, Mapping) and bool(part.keys() - {"_about_"})


def _text(part: Any) -> str:
    """A part in which `${prior...}` reads as `${prior}`."""
    return repr(part).replace("${prior.", "${prior}")
