"""A paper's table from hand-made records: published beside measured, seeds merged, the worst attack chosen honestly."""

import csv
import json

import numpy as np
import pytest
from cells import called

from lgap_bench.cell.identity import NUMERICS_VERSION
from lgap_bench.record import Record
from lgap_bench.report.figure import save
from lgap_bench.report.page import Empty
from lgap_bench.report.pages import paper
from lgap_bench.report.pages.all import name_differences
from lgap_bench.report.pages.language import attacks_of, draw, sweep
from lgap_bench.report.rows import grouped, merge
from lgap_bench.runtime.files import content_id

N, DRAWS = 4, 2


def chunk(right, damage, natural=None, failed=None):
    """Right or wrong per draw and image; the label is always 1."""
    right = np.asarray(right, bool)
    clean = np.ones_like(right) if natural is None else np.asarray(natural, bool)
    return {
        "id": np.arange(N), "label": np.ones(N, int), "failed": np.asarray(failed or [False] * N), "seconds": np.asarray(1.0),
        "clean_prediction": clean.astype(int), "attacked_prediction": right.astype(int),
        "clean_undefended": np.ones(N, int), "attacked_undefended": np.zeros(N, int),
        "attacked_damage": np.asarray(damage, float), "linf": np.zeros(N), "l2": np.zeros(N),
        "picture_clean": np.zeros((1, 2, 2, 3)),
    }  # fmt: skip


def record(
    outputs,
    name,
    right,
    damage,
    seed=0,
    experiment=None,
    overrides=(),
    finetune_seed=0,
    failed=None,
    attack=None,
    facts=None,
    config=None,
    **more,
):
    """A finished record; `more` goes into its identity, which names its folder, and `facts` into its summary."""
    from lgap_bench.evaluation.summary import summarise
    from lgap_bench.task.single_label import SINGLE_LABEL

    n = next((int(text[2:]) for text in overrides if text.startswith("n=")), 64)
    identity = {"seed": seed, "attack": {"name": attack or name}, "finetune": {"seed": finetune_seed}, "n": n, "threat": {"eps": "8/255"},
                "numerics_version": NUMERICS_VERSION, **more}  # fmt: skip
    made = Record(outputs / "records" / content_id(identity))
    assert not made.complete, "the identity does not tell this record from an earlier one"
    made.begin(config or {"dataset": {"classes": ["zero", "one"]}}, identity)
    chunks = [chunk(right, damage, failed=failed)]
    held = {"id": made.folder.name, "n": N, "seed": seed, "norm": "linf", "eps": "8/255", "view": "full", "stages": {},
             "classes": ["zero", "one"], "purifier_name": "lgap", "classifier_name": "digits/standard", "attack_name": name,
             "view_name": "full", "dataset_name": "digits", "captioner_name": None, "threat_name": "digits/linf", **(facts or {})}  # fmt: skip
    made.finish(chunks, {**held, **summarise(chunks, SINGLE_LABEL)}, {"seconds": 1.0})
    if experiment:
        made.request(experiment, list(overrides))
    return made


ALL, HALF, NONE = [[1] * N] * DRAWS, [[1] * N, [0] * N], [[0] * N] * DRAWS


def lines(outputs, title, table="lgap/1"):
    return [row for row in paper.tables(table, outputs)["digits"] if row["row"] == title]


def test_published_values_stand_beside_measured_ones_and_seeds_are_merged(tmp_path):
    record(
        tmp_path,
        "pgd",
        ALL,
        [0] * N,
        0,
        "lgap/table1/lgap",
        ["experiment=lgap/table1/lgap", "seed=0", "dataset=digits"],
    )
    record(
        tmp_path, "pgd", NONE, [0] * N, 1, "lgap/table1/lgap", ["+experiment/lgap/table1=lgap", "seed=1", "threads=1"]
    )
    (line,) = lines(tmp_path, "LGAP")
    assert (line["paper_natural"], line["paper_robust"]) == ("90.03", "71.68")
    assert (line["natural"], line["robust"], line["seeds"], line["n"]) == (100, 50, 2, N)
    assert line["robust_low"] < 50 < line["robust_high"]
    assert line["differs"] is None
    (cited,) = lines(tmp_path, "Hill et al. (cited)")
    assert cited["paper_robust"] == "78.91"
    assert cited["robust"] is cited["natural"] is Empty.CITED, "a cited value is not a measured one"


def test_a_cell_asked_for_twice_counts_once(tmp_path):
    made = record(tmp_path, "pgd", ALL, [0] * N, 0, "lgap/table1/lgap", ["threads=1"])
    made.request("lgap/table1/lgap", ["threads=2", "outputs=x"])
    made.request("lgap/table1/lgap", ["attack.steps=40"])  # the default, said aloud
    (line,) = lines(tmp_path, "LGAP")
    assert (line["seeds"], line["differs"]) == (1, None)


def test_records_of_other_computations_are_never_merged_as_if_they_were_seeds(tmp_path):
    record(tmp_path, "pgd", ALL, [0] * N, 0, "lgap/table1/lgap")
    record(tmp_path, "pgd", NONE, [0] * N, 1, "lgap/table1/lgap", numerics_version=1)
    record(tmp_path, "pgd", NONE, [0] * N, 2, "lgap/table1/lgap", device="an H200")
    found = [(line["robust"], line["seeds"], line["differs"]) for line in lines(tmp_path, "LGAP")]
    assert sorted(found, key=str) == [(0, 1, "numerics_version=1"), (0, 1, None), (100, 1, None)]


def test_other_settings_are_another_line_that_says_so(tmp_path):
    record(tmp_path, "a", ALL, [0] * N, 0, "lgap/table1/lgap", [])
    record(tmp_path, "b", NONE, [0] * N, 0, "lgap/table1/lgap", ["attack.steps=10", "n=4"])
    assert [(line["robust"], line["differs"]) for line in lines(tmp_path, "LGAP")] == [
        (100, None), (0, "attack.steps=10 n=4")]  # fmt: skip


@pytest.mark.parametrize("more", [[], ["n=4"]], ids=str)
def test_training_seeds_have_a_spread_of_their_own(tmp_path, more):
    for seed, right in enumerate((ALL, HALF, NONE)):
        overrides = [*more, *([f"finetune.seed={seed}"] if seed else [])]
        made = record(
            tmp_path, f"s{seed}", right, [0] * N, 0, "lgap/table1/lgap", overrides, finetune_seed=seed, attack="pgd"
        )
        if seed == 0:
            made.request("lgap/table1/lgap", [*more, "finetune.seed=0"])  # said aloud as well: still one training
    *single, spread = lines(tmp_path, "LGAP")
    assert len(single) == 3
    assert spread["robust"] == 50
    assert spread["interval"] == "0.0-100.0"
    assert "3 trainings (finetune.seed)" in spread["differs"]


def test_the_worst_attack_is_chosen_on_select_draws_and_scored_on_score_draws(tmp_path):
    # Attack a is worse for images 0 and 1 by its select draws, b for 2 and 3; the score draws disagree on image 0.
    a = [[1, 0, 0, 0]] * DRAWS
    b = [[0, 1, 1, 0]] * DRAWS
    record(tmp_path, "a", a, [0.9, 0.9, 0.1, 0.1], 0, "lgap/table1/lgap")
    record(tmp_path, "b", b, [0.5, 0.5, 0.5, 0.5], 0, "lgap/beyond/full")
    (line,) = lines(tmp_path, "worst attack per sample")
    assert line["robust"] == 50, "1 (a), 0 (a), 1 (b), 0 (b); picking on the score draws would say 0"
    assert line["natural"] == 100
    assert line["attack"] == "worst of 2 (11 asked for)"


def test_a_sample_that_failed_under_every_attack_is_left_out_and_one_that_failed_under_one_is_not(tmp_path):
    record(tmp_path, "a", ALL, [0.9] * N, 0, "lgap/table1/lgap", failed=[True, True, False, False])
    record(tmp_path, "b", NONE, [0.5] * N, 0, "lgap/beyond/full", failed=[True, False, False, False])
    (line,) = lines(tmp_path, "worst attack per sample")
    assert (line["failed"], line["status"]) == (1, "partial")
    assert line["robust"] == pytest.approx(200 / 3), "image 1 by b (wrong), 2 and 3 by a (right), 0 by none"


def test_the_worst_attack_never_mixes_runs_of_other_settings_or_seeds(tmp_path):
    record(tmp_path, "d", NONE, [0.5] * N, 0, "lgap/beyond/caption", [], finetune_seed=3)
    record(tmp_path, "a", ALL, [0.9] * N, 0, "lgap/table1/lgap", ["n=4"])
    record(tmp_path, "b", NONE, [0.5] * N, 0, "lgap/beyond/full", [])
    record(tmp_path, "c", NONE, [0.5] * N, 7, "lgap/beyond/full_joint", ["n=4"])
    assert all(line["robust"] is Empty.NOT_RUN for line in lines(tmp_path, "worst attack per sample"))


def test_beside_a_line_of_more_attacks_one_of_fewer_on_another_training_is_not_shown(tmp_path):
    for place, experiment in enumerate(("lgap/table1/lgap", "lgap/beyond/full", "lgap/beyond/full_joint")):
        record(tmp_path, f"a{place}", HALF, [0.5] * N, 0, experiment)
        if place < 2:
            record(tmp_path, f"b{place}", NONE, [0.9] * N, 0, experiment, ["finetune.seed=1"], finetune_seed=1)
    (line,) = lines(tmp_path, "worst attack per sample")
    assert line["attack"] == "worst of 3 (11 asked for)"
    assert line["robust"] == 50


def test_rows_that_read_the_same_say_what_sets_them_apart(tmp_path):
    made = [
        record(tmp_path, "x", ALL, [0] * N, purifier={"steps": 6, "size": 1}),
        record(tmp_path, "x", NONE, [0] * N, 1, purifier={"steps": 10, "size": 1}),
    ]
    groups = grouped(made)
    rows = [merge(group) for group in groups]
    name_differences(rows, [group[0].identity() for group in groups])
    assert [row["differs"] for row in rows] == ["purifier.steps=6", "purifier.steps=10"]


def test_the_command_prints_exports_and_refuses(tmp_path):
    record(tmp_path, "pgd", HALF, [0] * N, 0, "lgap/table1/lgap")
    done = called("report", "table=lgap/1", "dataset=digits", f"outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "71.68" in done.stdout
    with (tmp_path / "tables" / "lgap-1-digits.csv").open() as stream:
        (row,) = [row for row in csv.DictReader(stream) if row["row"] == "LGAP"]
    assert (float(row["paper_robust"]), float(row["robust"]), row["attack"], row["n"]) == (71.68, 50, "pgd", "4")
    assert "| LGAP | 90.03 | 71.68 |" in (tmp_path / "tables" / "lgap-1-digits.md").read_text()
    for call, part in (
        (["table=lgap/9"], "lgap/1"),
        (["tabel=lgap/1"], "tabel"),
        (["table=lgap/1", "dataset=cifar"], "dataset=cifar is not known"),
    ):
        refused = called("report", *call, f"outputs={tmp_path}")
        assert refused.returncode == 1
        assert refused.stderr.count("\n") == 1
        assert part in refused.stderr


def test_a_record_tells_who_asked(tmp_path):
    made = record(tmp_path, "pgd", ALL, [0] * N, 0, "lgap/table1/lgap", ["seed=0"])
    made.request("lgap/table1/lgap", ["seed=0"])
    assert made.requests() == [{"experiment": "lgap/table1/lgap", "overrides": ["seed=0"]}]
    assert len(list((made.folder / "asked").iterdir())) == 1
    assert json.loads(next((made.folder / "asked").iterdir()).read_text())["experiment"] == "lgap/table1/lgap"


def language(outputs, captions, strength, right, experiment, attack="pgd", **more):
    return record(
        outputs, attack, right, [0] * N, 0, f"lgap/language/{experiment}", view={"name": experiment},
        purifier={"strength": strength, "captioner": captions}, facts={"captioner_name": captions}, **more,
    )  # fmt: skip


def test_the_ablation_of_language_has_every_attack_and_refuses_two_records_for_one_place(tmp_path):
    experiments = [f"lgap/language/{name}" for name in ("blind", "bpda", "full")]
    language(tmp_path, "empty", 0.5, NONE, "bpda")
    language(tmp_path, "oracle", 0.5, ALL, "full")
    language(tmp_path, "oracle", 0.5, HALF, "blind")
    rows = sweep(experiments, tmp_path, "digits")
    assert [(row["captions"], row.get("robust_blind"), row.get("robust_bpda"), row.get("robust_full")) for row in rows] == [
        ("empty", None, 0, None), ("oracle", 50, None, 100)]  # fmt: skip
    assert set(attacks_of(rows)) == {"blind", "bpda", "full"}
    assert save(draw(rows), tmp_path / "figure.png").stat().st_size > 1000
    language(tmp_path, "oracle", 0.5, ALL, "full", attack="stronger")
    with pytest.raises(ValueError, match=r"both captions from oracle at strength 0.5"):
        sweep(experiments, tmp_path, "digits")


def test_a_row_without_a_miniature_is_left_out_there_and_measured_at_paper_scale():
    from lgap_bench.sweep.tables import grids

    name = "conditioned_denoising/ablation/rt_detr"
    small, large = (str(grids(["conditioned_denoising/ablations"], miniature, False)) for miniature in (True, False))
    assert name not in small
    assert name in large
