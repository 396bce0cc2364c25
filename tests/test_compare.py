"""Purifiers x attacks, curves over a key, and the worse of two attacks, from hand-made records: seeds merged, one defense per row, nothing mixed that differs."""

import csv

import pytest
from cells import called
from test_paper_tables import ALL, HALF, NONE, N, lines, record

from lgap_bench.record import Record
from lgap_bench.report.page import Empty
from lgap_bench.report.pages.compare import tables, worst
from lgap_bench.report.pages.curve import points
from lgap_bench.report.paired import across
from lgap_bench.report.paired import differences as paired
from lgap_bench.report.rows import apart, told
from lgap_bench.report.select import by_defense

NAMES = ("blind", "bpda", "full_detached", "full_apgd")
EXPERIMENTS = [f"coup/finding/{name}" for name in NAMES]


def finding(outputs, name, attack, right, seed=0, eps="48/255", overrides=(), preset=None, damage=(0,) * N, **purifier):
    settings = {"_target_": name, "t_star": 0.2, **purifier}
    return record(outputs, attack, right, list(damage), seed, f"coup/finding/{attack}", overrides, attack=preset or attack,
                  purifier=settings, threat={"eps": eps}, facts={"purifier_name": name, "eps": eps})  # fmt: skip


def test_seeds_merge_and_every_attack_of_a_defense_stands_in_its_row(tmp_path):
    finding(tmp_path, "coup", "full_apgd", ALL, 0)
    finding(tmp_path, "coup", "full_apgd", NONE, 1)
    finding(tmp_path, "coup", "blind", ALL, 0)
    finding(tmp_path, "diffpure", "full_apgd", HALF, 0)
    rows = {row.facts["purifier"]: row for row in by_defense(EXPERIMENTS, tmp_path, "digits")}
    assert rows.keys() == {"coup", "diffpure"}
    assert (rows["coup"].lines["full_apgd"]["robust"], rows["coup"].lines["full_apgd"]["seeds"]) == (50, 2)
    assert rows["coup"].lines["blind"]["robust"] == 100
    assert rows["diffpure"].lines.keys() == {"full_apgd"}


def test_a_guidance_hidden_from_the_attacker_is_the_same_defense(tmp_path):
    for hidden, attack in ((True, "full_detached"), (False, "full_apgd")):
        finding(tmp_path, "coup", attack, ALL, guidance={"weight": 1.0, "detach_guidance": hidden})
    (row,) = by_defense(EXPERIMENTS, tmp_path, None)
    assert row.lines.keys() == {"full_detached", "full_apgd"}


def test_budgets_and_settings_of_the_defense_are_rows_of_their_own_that_say_so(tmp_path):
    finding(tmp_path, "coup", "full_apgd", ALL)
    finding(tmp_path, "coup", "full_apgd", NONE, eps="32/255")
    finding(tmp_path, "coup", "full_apgd", HALF, t_star=0.1)
    rows = by_defense(EXPERIMENTS, tmp_path, None)
    differences = apart([row.identity for row in rows], [row.facts["eps"] for row in rows])
    found = {
        (row.facts["eps"], told(each), row.lines["full_apgd"]["robust"])
        for row, each in zip(rows, differences, strict=True)
    }
    assert found == {
        ("48/255", "purifier.t_star=0.2", 100), ("32/255", "", 0), ("48/255", "purifier.t_star=0.1", 50)}  # fmt: skip


def test_two_settings_of_one_attack_are_refused_and_another_attack_is_left_out(tmp_path):
    finding(tmp_path, "coup", "full_apgd", ALL)
    finding(tmp_path, "coup", "full_apgd", NONE, overrides=["attack.steps=3"], preset="other")
    (row,) = by_defense(EXPERIMENTS, tmp_path, None)
    assert row.lines["full_apgd"]["robust"] == 100, "asked for with another attack: not the experiment's"
    finding(tmp_path, "coup", "full_apgd", NONE, preset="older")
    with pytest.raises(ValueError, match=r"coup/finding/full_apgd: records .* differ in the attack's own settings"):
        by_defense(EXPERIMENTS, tmp_path, None)


def test_clean_and_attacked_images_are_counted_alike(tmp_path):
    finding(tmp_path, "coup", "full_apgd", HALF)
    held = [("coup", row) for row in by_defense(EXPERIMENTS, tmp_path, None)]
    mean, any_of, majority = tables(held, ["full_apgd", "blind"]).values()
    assert mean[0]["natural"].startswith("100.0 (")
    assert mean[0]["full_apgd"].startswith("50.0 (")
    assert mean[0]["blind"] is None
    assert (any_of[0]["natural"], any_of[0]["full_apgd"], majority[0]["full_apgd"]) == ("100.0", "0.0", "0.0")


def test_the_worst_column_is_per_image_and_of_the_seeds_that_met_most_attacks(tmp_path):
    a, b = [[1, 1, 0, 0]] * 2, [[0, 1, 1, 1]] * 2
    finding(tmp_path, "coup", "blind", a, 0, damage=[0.9, 0.1, 0.9, 0.9])
    finding(tmp_path, "coup", "full_apgd", b, 0, damage=[0.1, 0.9, 0.1, 0.1])
    finding(tmp_path, "coup", "blind", ALL, 1)
    finding(tmp_path, "lgap", "blind", ALL, 0)
    finding(tmp_path, "lgap", "bpda", ALL, 1)
    rows = {row.facts["purifier"]: row for row in by_defense(EXPERIMENTS, tmp_path, None)}
    line = worst(rows["coup"])
    assert (line["robust"], line["seeds"], line["compared"]) == (50, 1, 2), "seed 1 has met the blind attacker alone"
    assert worst(rows["lgap"]) is None, "two attacks, but none of the seeds met both"


def test_a_difference_is_taken_image_by_image(tmp_path):
    for seed in (0, 1):
        finding(tmp_path, "coup", "full_apgd", [[1, 1, 1, 0]] * 2, seed)
        finding(tmp_path, "coup_unguided", "full_apgd", [[1, 1, 0, 0], [1, 0, 0, 0]], seed)
    finding(tmp_path, "coup", "blind", ALL, 0)
    finding(tmp_path, "coup_unguided", "blind", ALL, 1)
    held = [(row.facts["purifier"], row) for row in by_defense(EXPERIMENTS, tmp_path, None)]
    (line,) = paired(held, [["coup", "coup_unguided"], ["lgap_coup", "lgap"]], ["full_apgd", "blind", "bpda"])
    assert line["difference"] == "coup - coup_unguided"
    assert line["full_apgd"].startswith("+37.5 ("), "(0 + 0.5 + 1 + 0) / 4"
    assert line["blind"] is line["bpda"] is None, "no seed of both, and no record at all"
    assert paired(held, [["coup", "coup_unguided"]], ["bpda"]) == []


def test_the_difference_under_the_worst_attack_is_of_each_defenses_own(tmp_path):
    a, b = [[1, 1, 0, 0]] * 2, [[0, 1, 1, 1]] * 2
    finding(tmp_path, "coup", "blind", a, damage=[0.9, 0.1, 0.9, 0.9])
    finding(tmp_path, "coup", "full_apgd", b, damage=[0.1, 0.9, 0.1, 0.1])  # the worst: right, right, wrong, wrong
    finding(tmp_path, "coup_unguided", "blind", ALL, damage=[0.1] * N)
    held = [(row.facts["purifier"], row) for row in by_defense(EXPERIMENTS, tmp_path, None)]
    pair = [["coup", "coup_unguided"]]
    assert paired(held, pair, ["worst"]) == [], "one attack alone has no worst"
    finding(tmp_path, "coup_unguided", "full_apgd", NONE, damage=[0.9] * N)
    held = [(row.facts["purifier"], row) for row in by_defense(EXPERIMENTS, tmp_path, None)]
    (line,) = paired(held, pair, ["blind", "worst"])
    assert line["worst"].startswith("+50.0 (")
    assert line["blind"].startswith("-50.0 (")


def test_two_attacks_on_the_same_images_are_set_against_one_another(tmp_path):
    finding(tmp_path, "coup", "full_apgd", ALL)
    finding(tmp_path, "coup", "full_detached", HALF)
    finding(tmp_path, "coup_unguided", "full_apgd", [[1, 0, 0, 0]] * 2)
    held = [(row.facts["purifier"], row) for row in by_defense(EXPERIMENTS, tmp_path, None)]
    sides = ["coup full_detached", "coup full_apgd", "coup_unguided full_apgd", "lgap blind"]
    first, second = across(held, [sides[:2], [sides[0], sides[2]], [sides[0], sides[3]]])
    assert first == {"difference": "coup full_detached - coup full_apgd", "points": "-50.0 (-79.1 to 12.4)"}
    assert second["points"].startswith("+25.0 (")


def test_every_setting_of_a_purifier_is_paired_under_its_own_label(tmp_path):
    finding(tmp_path, "coup", "full_apgd", ALL)
    finding(tmp_path, "coup", "full_apgd", HALF, t_star=0.3)
    finding(tmp_path, "coup_unguided", "full_apgd", NONE)
    rows = by_defense(EXPERIMENTS, tmp_path, None)
    held = [(f"{row.facts['purifier']} {row.identity['purifier.t_star']}", row) for row in rows]
    found = {line["difference"]: line["full_apgd"] for line in paired(held, [["coup", "coup_unguided"]], ["full_apgd"])}
    assert found == {
        "coup 0.2 - coup_unguided 0.2": "+100.0 (-17.8 to 100.0)",
        "coup 0.3 - coup_unguided 0.2": "+50.0 (-12.4 to 79.1)",
    }


def test_a_difference_leaves_out_what_failed_on_either_side_and_refuses_other_images(tmp_path, monkeypatch):
    sides = {}
    for name, right, failed in (("coup", ALL, None), ("lgap", [[1, 0, 0, 0]] * 2, [True, True, False, False])):
        sides[name] = record(tmp_path, name, right, [0] * N, 0, "coup/finding/blind", attack="blind", purifier=name,
                             failed=failed, facts={"purifier_name": name})  # fmt: skip
    held = [(row.facts["purifier"], row) for row in by_defense(EXPERIMENTS, tmp_path, None)]
    (line,) = paired(held, [["coup", "lgap"]], ["blind"])
    assert line["blind"].startswith("+100.0 ("), "of the two images whose attacks went through"
    samples = sides["lgap"].samples()
    monkeypatch.setattr(
        Record, "samples", lambda record: samples | {"id": list(range(N)) if record == sides["coup"] else [9, 8, 7, 6]}
    )
    with pytest.raises(ValueError, match="blind: two defenses were measured on different images"):
        paired(held, [["coup", "lgap"]], ["blind"])


def test_the_command_prints_and_writes_a_table_per_budget(tmp_path):
    assert "lgap-bench tables coup/finding" in called("report", "table=coup/finding", f"outputs={tmp_path}").stderr
    for eps in ("32/255", "48/255"):
        finding(tmp_path, "coup", "full_apgd", HALF, eps=eps)
        finding(tmp_path, "lgap", "blind", ALL, eps=eps)
    done = called("report", "table=coup/finding", "dataset=digits", f"outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("linf 32/255") < done.stdout.index("linf 48/255")
    with (tmp_path / "tables" / "coup-finding.csv").open() as stream:
        lines = [
            (line["purifier"], line["attack"], line["eps"], float(line["robust"])) for line in csv.DictReader(stream)
        ]
    assert ("coup", "full_apgd", "48/255", 50.0) in lines
    assert len(lines) == 4, "one attack alone has no worst"
    assert (tmp_path / "tables" / "coup-finding.png").stat().st_size > 1000
    assert "| coup |" in (tmp_path / "tables" / "coup-finding.md").read_text()


def curve(outputs, value, right, eps="48/255"):
    made = finding(outputs, "coup", "full_apgd", right, eps=eps, t_star=value)
    made.request("coup/figure4/t_star", [f"purifier.t_star={value}"])


def test_a_curve_has_a_point_per_value_in_order_and_a_line_per_budget(tmp_path):
    for value, right in ((0.3, NONE), (0.05, ALL), (0.1, HALF)):
        curve(tmp_path, value, right)
    curve(tmp_path, 0.1, ALL, eps="32/255")
    found = points(by_defense(["coup/figure4/t_star"], tmp_path, None), "purifier.t_star")
    own = [(point["value"], point["robust"]) for point in found if "48/255" in point["line"]]
    assert own == [(0.05, 100), (0.1, 50), (0.3, 0)]
    assert [(point["value"], point["robust"]) for point in found if "32/255" in point["line"]] == [(0.1, 100)]
    done = called("report", "table=coup/figure4a", f"outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tables" / "coup-figure4a.png").stat().st_size > 1000
    assert "| 0.05 | 100.0 |" in (tmp_path / "tables" / "coup-figure4a.md").read_text(), "not rounded to 0.1"
    with pytest.raises(ValueError, match=r"purifier.guidance.weight is no key of purifier=coup"):
        points(by_defense(["coup/figure4/t_star"], tmp_path, None), "purifier.guidance.weight")


def test_the_worse_of_two_attacks_counts_all_images_together_and_waits_for_both(tmp_path):
    a, b = [[1, 1, 0, 0]] * 2, [[0, 0, 0, 1]] * 2
    record(tmp_path, "standard", a, [0.9] * N, 0, "coup/slow/coup_linf_standard")
    title = "COUP, AutoAttack, the worse of standard and rand"
    (line,) = lines(tmp_path, title, "coup/1")
    assert line["robust"] is Empty.NOT_RUN, "one of two is no worse of both"
    assert line["to_run"].split() == ["lgap-bench", "run", "experiment=coup/slow/coup_linf_rand", "dataset=digits"]
    assert line["paper_robust"] == "73.05"
    record(tmp_path, "rand", b, [0.5] * N, 0, "coup/slow/coup_linf_rand")
    (line,) = lines(tmp_path, title, "coup/1")
    assert (line["robust"], line["attack"]) == (25, "rand, the worse of 2")
    (per_image,) = lines(tmp_path, "COUP, AutoAttack, the worse of both per image", "coup/1")
    assert per_image["robust"] == 50, "by select draws `standard` is worse for every image"
