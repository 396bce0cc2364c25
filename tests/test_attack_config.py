"""Every attack preset: the view it brings, the view that the command line puts in its place, and the protocol's numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lgap_bench import CONF
from lgap_bench.attack.autoattack import APGD, AutoAttack
from lgap_bench.attack.carlini_wagner import CarliniWagner
from lgap_bench.attack.ensemble import Ensemble
from lgap_bench.attack.none import NoAttack
from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.random_noise import RandomNoise
from lgap_bench.attack.salt_and_pepper import SaltAndPepper
from lgap_bench.attack.torchattack import CW, EOTPGD, DeepFool, Square
from lgap_bench.cell.compose import composed
from lgap_bench.cell.config import resolve
from lgap_bench.cell.identity import identity, record_id
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.cell.values import fraction, satisfies

CLASSIC = dict(restarts=1, draws=1, class_weight=1.0, caption_weight=0.0)
# preset -> its view, its class, and what its protocol fixes; step sizes at 8/255
PRESETS: dict[str, tuple[str, type, dict[str, Any]]] = {
    "none": ("none", NoAttack, {}),
    "fgsm": ("blind", PGD, CLASSIC | dict(steps=1, step_size=8 / 255, start="zero")),
    "pgd": ("blind", PGD, CLASSIC | dict(steps=40, step_size=2 / 255, start="random")),
    "bpda": ("bpda", PGD, CLASSIC | dict(steps=40, step_size=2 / 255, start="zero")),
    "bpda_eot": ("bpda", PGD, CLASSIC | dict(steps=40, step_size=2 / 255, start="zero", draws=15)),
    "full": ("full", PGD, CLASSIC | dict(steps=20, step_size=1 / 255, start="zero", draws=4)),
    "full_strong": ("full", PGD, CLASSIC | dict(steps=200, step_size=0.007, start="both", draws=20, restarts=2)),
    "caption": ("caption", PGD, CLASSIC | dict(steps=40, step_size=2 / 255, class_weight=0.0, caption_weight=1.0)),
    "caption_nearest": ("caption", PGD, CLASSIC | dict(class_weight=0.0, caption_weight=1.0, caption_target="nearest")),
    "caption_unrelated": (
        "caption",
        PGD,
        CLASSIC | dict(class_weight=0.0, caption_weight=1.0, caption_target="unrelated"),
    ),
    "joint_nearest": ("bpda", PGD, CLASSIC | dict(start="zero", caption_weight=1.0, caption_target="nearest")),
    "joint": ("bpda", PGD, CLASSIC | dict(steps=40, step_size=2 / 255, start="zero", caption_weight=1.0)),
    "full_joint": ("full", PGD, CLASSIC | dict(steps=20, step_size=1 / 255, start="zero", draws=4, caption_weight=1.0)),
    "detector": ("detector", PGD, CLASSIC | dict(steps=40, start="zero", class_weight=0.0, detector_weight=1.0)),
    "bpda_detector": ("bpda", PGD, CLASSIC | dict(steps=40, start="zero", detector_weight=1.0)),
    "full_detector": ("full", PGD, CLASSIC | dict(steps=20, start="zero", draws=4, detector_weight=1.0)),
    "surrogate": ("surrogate", PGD, CLASSIC | dict(steps=20, step_size=1 / 255, start="zero", draws=4)),
    "adjoint": ("adjoint", PGD, CLASSIC | dict(steps=20, step_size=1 / 255, start="zero", draws=4)),
    "full_detached": ("detached", PGD, CLASSIC | dict(steps=20, step_size=1 / 255, start="zero", draws=4)),
    "apgd_ce": ("full", APGD, dict(loss="cross_entropy", n_iter=100)),
    "apgd_t": ("full", APGD, dict(loss="targeted_dlr", n_iter=100, draws=1, confirm_draws=32)),
    "full_ensemble": ("full", Ensemble, dict(select_draws=10, confirm_draws=32)),
    "autoattack_standard": ("full", AutoAttack, dict(version="standard", n_iter=100, n_queries=5000)),
    "autoattack_rand": ("full", AutoAttack, dict(version="rand", n_iter=100, draws=20)),
    "salt_and_pepper": ("none", SaltAndPepper, dict(density=0.025)),
    "random": ("query", RandomNoise, dict(tries=1)),
    "cw": ("full", CarliniWagner, dict(c=10.0, search=5, kappa=0.0, steps=100, learning_rate=0.1)),
    "cw_torchattacks_c1": ("full", CW, dict(c=1.0, kappa=0.0, steps=50, learning_rate=0.01)),
    "cw_torchattacks_c1_long": ("full", CW, dict(c=1.0, kappa=0.0, steps=200, learning_rate=0.1)),
    "deepfool": ("full", DeepFool, dict(steps=50, overshoot=0.02, candidates=9)),
    "square": ("query", Square, dict(n_queries=5000, p_init=0.8, draws=20)),
    "eotpgd": ("full", EOTPGD, dict(steps=10, step_size=2 / 255, draws=2, random_start=True)),
}


def cell(*overrides: str) -> dict[str, Any]:
    cfg = composed(overrides)
    return resolve(cfg, cfg.hydra.runtime.choices)


def test_the_table_names_every_preset():
    own = {"given"}  # needs a file: tests/test_given.py
    assert {path.stem for path in (CONF / "attack").glob("*.yaml")} == set(PRESETS) | own


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_brings_its_view_and_its_protocol(name):
    view, kind, numbers = PRESETS[name]
    composed = cell(f"attack={name}", *(["purifier=coup"] if view == "surrogate" else []))
    assert composed.names.view == view
    assert composed.view["_target_"].lower().endswith({"none": "view", "detector": "caption"}.get(view, view))
    attack = instantiate(composed.attack)
    assert type(attack) is kind
    for key, value in numbers.items():
        found = fraction(getattr(attack, key), key, 8 / 255) if key == "step_size" else getattr(attack, key)
        assert found == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value), key
    for key, limit in composed.attack.get("limits", {}).items():
        assert satisfies(composed.attack[key], limit), (key, limit)


@pytest.mark.parametrize(
    "version, key, less",
    [("standard", "n_iter", 99), ("rand", "n_iter", 99), ("standard", "n_queries", 4999), ("rand", "draws", 19)],
)
def test_autoattack_with_less_than_its_own_does_not_keep_its_name(version, key, less):
    name, more = f"autoattack_{version}", f"attack.{key}={less + 1}"
    assert cell(f"attack={name}", more).names.attack == name
    assert cell(f"attack={name}", f"attack.{key}={less}").names.attack == f"reduced_{name}"


def test_autoattack_rand_has_no_square_to_reduce():
    assert cell("attack=autoattack_rand", "attack.n_queries=100").names.attack == "autoattack_rand"


@pytest.mark.parametrize("key", ["members", "hidden"])
def test_the_order_of_an_ensemble_s_members_is_part_of_its_identity(key):
    plain = cell("attack=full_ensemble", "+attack@attack.hidden.more=apgd_ce", "view=full")
    members = dict(reversed(plain.attack[key].items()))
    turned = replace(plain, attack={**plain.attack, key: members})
    assert turned == plain, "the same members"
    assert record_id(identity(turned, "cpu")) != record_id(identity(plain, "cpu"))


@pytest.mark.parametrize("name", PRESETS)
def test_the_command_line_overrules_the_preset_view(name):
    other = "bpda" if PRESETS[name][0] == "blind" else "blind"
    assert cell(f"attack={name}", f"view={other}").names.view == other
    assert cell(f"view={other}", f"attack={name}").names.view == other


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "none"])
def test_every_knob_has_its_reason_in_its_own_file(name):
    lines = (CONF / "attack" / f"{name}.yaml").read_text().split("limits:")[0].splitlines()
    assert lines[0].startswith("# ")
    knobs = [
        line
        for line in lines
        if ":" in line and line[0].isalpha() and line.split(":")[0] not in ("defaults", "_target_")
    ]
    assert knobs
    assert all(" # " in line for line in knobs), knobs
