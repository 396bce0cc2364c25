"""Every attack preset, every purifier and every caption source runs a real cell in miniature."""

import pytest
from omegaconf import OmegaConf

from lgap_bench import CONF
from lgap_bench.cell.about import about
from lgap_bench.cell.compose import composed
from lgap_bench.measure import run_cell

ATTACKS = sorted(file.stem for file in (CONF / "attack").glob("*.yaml"))
# As few steps as still take every path of the code; presets differ in the keys they have.
FEW = {"steps": 2, "n_iter": 2, "n_queries": 5, "draws": 2, "restarts": 2, "confirm_draws": 2, "select_draws": 2}


def run(outputs, *overrides):
    common = ["n=3", "chunk=2", "score_draws=2", "threads=1", "device=cpu", f"outputs={outputs}", *overrides]
    cfg = composed(common)
    if about(cfg.attack, "needs", {}).get("norm") == "l2":
        cfg = composed([*common, "threat=digits/l2"])
    shorten(cfg.attack)
    return run_cell(cfg, cfg.hydra.runtime.choices)


def shorten(attack, few=FEW):
    """Make an attack short, and those it is made of: in place, since composing a cell twice takes longer than some cells."""
    for key, child in attack.items():
        if key in few:
            attack[key] = few[key]
        elif OmegaConf.is_dict(child) and key != "_about_":
            shorten(child, few)


SLOW = ("autoattack_standard", "full_ensemble")
STAND_INS = {"surrogate": "surrogate", "adjoint": "adjoint", "full_detached": "detached"}  # attack -> view


DETECTOR = {"detector", "bpda_detector", "full_detector"}  # run against inpaint by tests/test_experiments.py


@pytest.mark.parametrize("attack", STAND_INS)
def test_attacks_on_a_stand_in_run_against_coup_and_say_how_far_it_is_from_the_exact_gradient(tmp_path, attack):
    summary = run(tmp_path, "purifier=coup", f"attack={attack}", "n=2").summary()
    assert summary["status"] == "complete"
    assert summary["view_name"] == STAND_INS[attack]
    assert -1 <= summary["gradient_cosine"] <= 1
    assert summary["mean_linf"] > 0


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in sorted(set(ATTACKS) - set(STAND_INS) - {"given"} - DETECTOR)  # tests/test_given.py
    ],
)
def test_every_attack_runs_against_lgap_and_shows_its_view(tmp_path, attack):
    summary = run(tmp_path, f"attack={attack}", "n=2").summary()
    assert summary["status"] == "complete"
    assert summary["attack_name"] == ("reduced_" if attack.startswith("autoattack") else "") + attack
    assert summary["view_name"] in ("none", "blind", "bpda", "full", "caption", "query")
    assert ("as_published" in summary) == attack.startswith(("apgd", "autoattack"))
    shares = [value for key, value in summary.items() if key.startswith("found_by_")]
    assert sum(shares) == pytest.approx(100 * (attack == "full_ensemble" or "as_published" in summary))
    assert (summary["mean_linf"] == 0) == (attack == "none")
    assert 0 < summary["attacked_caption_bleu"] <= summary["attacked_caption_rouge"] <= 100
    assert ("attacked_caption_target" in summary) == attack.endswith(("_nearest", "_unrelated"))


@pytest.mark.parametrize("attack", ["autoattack_standard", "apgd_ce"])
def test_the_librarys_attacks_run_blind_and_on_an_undefended_classifier(tmp_path, attack):
    assert run(tmp_path / "a", f"attack={attack}", "view=blind").summary()["view_name"] == "blind"
    assert run(tmp_path / "b", f"attack={attack}", "purifier=none").summary()["robust"]["mean"] <= 67


@pytest.mark.parametrize("purifier", ["none", "downsample", "vae_only", "sd_img2img"])
def test_every_other_purifier_runs_under_its_exact_gradient(tmp_path, purifier):
    summary = run(tmp_path, f"purifier={purifier}", "attack=full", "threat=digits/l2").summary()
    assert 0 < summary["mean_l2"] <= 3.0 + 1e-5


@pytest.mark.parametrize(
    "captioner, says",
    [
        ("empty", ""),
        ("fixed", "a photo"),
        ("oracle", "handwritten"),
        ("wrong", "handwritten"),
        ("digits/blip", "strokes"),
        ("digits/consensus", "strokes"),
    ],
)
def test_every_caption_source_says_what_it_should(tmp_path, captioner, says):
    record = run(tmp_path, "attack=bpda", f"captioner={captioner}")
    samples = record.samples()
    assert all(says in caption for caption in samples["attacked_caption"])
    named = {"oracle": True, "wrong": False, "empty": False, "fixed": False}
    if captioner in named:
        assert set(samples["clean_caption_label"]) == {named[captioner]}
    assert record.summary()["captioner_name"] == captioner
