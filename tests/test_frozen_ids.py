"""Frozen ids: a record answers for a cell by its id, so a moved `_target_` or key would silently orphan every record.

`python tests/test_frozen_ids.py` writes the file anew; a change of ids stands in CHANGELOG.md.
"""

import json
from pathlib import Path

import pytest
from cells import identified

FROZEN = Path(__file__).parent / "frozen_ids.json"
PURIFIERS = ("none", "downsample", "vae_only", "lgap", "sd_img2img", "lgap_coup", "diffpure", "coup", "coup_unguided",
             "gdmp", "likelihood_max", "likelihood_max_guided")  # fmt: skip
CELLS = {
    **{f"purifier {name}": [f"purifier={name}", "attack=pgd"] for name in PURIFIERS},
    **{f"view {name}": ["purifier=coup", "attack=full", f"view={name}"]
       for name in ("blind", "bpda", "full", "detached", "surrogate", "adjoint")},
    "view caption": ["attack=caption"],
    "view query": ["attack=square"],
    "view none": ["attack=none"],
    "ensemble": ["purifier=coup", "attack=full_ensemble"],
    "AutoAttack": ["attack=autoattack_rand"],
    "l2": ["attack=cw_torchattacks_c1_long", "threat=digits/l2"],
    "corruption": ["attack=salt_and_pepper", "threat=digits/corruption"],
    "fine-tuned": ["finetune=lgap", "attack=bpda"],
    "fine-tuned, a stage of its own": ["finetune=lgap_release", "finetune.seed=1", "attack=full"],
    "trained from scratch": ["classifier=digits/scratch", "train=digits/adp", "purifier=downsample", "attack=pgd"],
    "consensus": ["captioner=digits/consensus"],
    "oracle": ["captioner=oracle"],
    "unrelated": ["attack=caption_unrelated"],
    "subset": ["purifier=none", "attack=pgd", "subset=digits/coup_512"],
    "as released": ["purifier.as_released=true", "max_rows=32"],
}  # fmt: skip


def found() -> dict[str, dict[str, str]]:
    return {name: identified(overrides) for name, overrides in CELLS.items()}


@pytest.mark.parametrize("name", CELLS)
def test_the_ids_of_records_and_trained_weights_stay(name):
    assert identified(CELLS[name]) == json.loads(FROZEN.read_text())[name]


def test_every_frozen_cell_has_an_id_of_its_own():
    ids = [each["cell"] for each in json.loads(FROZEN.read_text()).values()]
    # The view `none` of a defense that is not attacked is what `oracle` and others differ from; no two coincide.
    assert len(set(ids)) == len(ids)


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(found(), indent=1) + "\n")
