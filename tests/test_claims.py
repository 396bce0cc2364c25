"""A paper's claims from hand-made records: the lowest number decides, and what cannot decide says so."""

import pytest
from test_page import made
from test_paper_tables import ALL, HALF, NONE

from lgap_bench.cell.compose import CONF
from lgap_bench.record import records
from lgap_bench.report.pages import claims, paper

CLAIM = {
    "claim": "LGAP keeps 70 %",
    "published": 70,
    "of": "robust",
    "protocol": ["a/b/own"],
    "experiments": ["a/b/more"],
}
TABLES = [name for name in paper.known() if name.endswith("/claims")]


def rows(outputs, **changes):
    return claims.held({"claims": [{**CLAIM, **changes}]}, records(outputs))


def asked(outputs, right, name="pgd", experiment="a/b/own", steps=1, overrides=(), **facts):
    return made(outputs, name, right, steps, "full", experiment, [f"experiment={experiment}", *overrides], **facts)


def test_the_lowest_of_all_attackers_stands_beside_what_the_papers_own_one_leaves(tmp_path):
    asked(tmp_path, ALL)
    lowest = asked(tmp_path, NONE, "stronger", "a/b/more", 2)
    (row,) = rows(tmp_path)
    assert (row["published"], row["same_attack"], row["lowest"]) == ("70.00", 100.0, 0.0)
    assert row["verdict"] == "no: lower than published (in miniature)"
    assert lowest.folder.name in row["records"]


def test_at_paper_scale_nothing_is_called_miniature(tmp_path):
    asked(tmp_path, NONE, dataset_name="cifar10")
    assert rows(tmp_path)[0]["verdict"] == "no: lower than published"


@pytest.mark.parametrize(
    "right, facts, published, expected",
    [
        (ALL, {"verdict": "upper bound"}, 10, "open: higher, but an upper bound: a stronger attack exists"),
        (ALL, {"verdict": "not judged"}, 10, "open: higher, but its record was not judged: measure it again"),
        (ALL, {"verdict": "sound"}, 10, "yes, against the attacks tried"),
        (HALF, {"verdict": "sound"}, 50, "open: within the interval"),
        (NONE, {"verdict": "invalid"}, 90, "open: the measurement failed"),
        (NONE, {"verdict": "upper bound"}, 90, "no: lower than published"),
    ],
)
def test_the_verdict_of_a_record_bounds_what_it_says_of_a_claim(tmp_path, right, facts, published, expected):
    asked(tmp_path, right, dataset_name="cifar10", **facts)
    assert rows(tmp_path, published=published)[0]["verdict"] == expected


def test_records_of_other_settings_say_nothing_of_a_claim(tmp_path):
    asked(tmp_path, NONE, overrides=["threat.eps=64/255"])
    asked(tmp_path, NONE, "other", overrides=["purifier.strength=0.1"])
    assert rows(tmp_path)[0]["verdict"] == claims.UNMEASURED
    (row,) = rows(tmp_path, where=["threat.eps=64/255"])
    assert row["lowest"] == 0.0


def test_fewer_images_still_speak_of_the_claim_and_say_how_many(tmp_path):
    asked(tmp_path, NONE, overrides=["n=4"])
    (row,) = rows(tmp_path)
    assert "n = 4" in row["on"]


def test_a_difference_is_in_points_between_each_sides_lowest_on_the_same_images(tmp_path):
    asked(tmp_path, NONE)
    asked(tmp_path, ALL, "other", "a/b/other", 2, purifier="diffpure")
    (row,) = rows(tmp_path, over=["a/b/other"], published="+2")
    assert (row["same_attack"], row["lowest"]) == ("-100.0", "-100.0")
    (row,) = rows(tmp_path, protocol=["a/b/other"], experiments=[], over=["a/b/own"])
    assert row["lowest"] == "+100.0"


@pytest.mark.parametrize("ours, theirs, expected", [(50, 70, "no: lower"), (70, 50, "yes: higher"), (60, 65, "open")])
def test_a_difference_counts_where_the_intervals_lie_apart(ours, theirs, expected):
    def line(value, experiment):
        held = {"robust": value, "robust_low": value - 5, "robust_high": value + 5, "verdict": "sound", "said": "pgd"}
        return {**held, "experiment": experiment, "dataset": "cifar10", "n": 512, "norm": "linf", "eps": "8/255"}

    mine, other = [line(ours, "a/b/own")], [line(theirs, "a/b/other")]
    found = claims._difference({**CLAIM, "over": ["a/b/other"]}, mine, mine, other)
    assert found["verdict"].startswith(expected)
    assert float(found["lowest"]) == ours - theirs


def test_a_difference_of_other_images_is_none(tmp_path):
    asked(tmp_path, NONE)
    asked(tmp_path, ALL, "other", "a/b/other", 2, purifier="diffpure", eps="16/255")
    assert "not measured on the same images" in rows(tmp_path, over=["a/b/other"])[0]["verdict"]


def test_a_difference_within_both_intervals_is_open(tmp_path):
    asked(tmp_path, HALF)
    asked(tmp_path, HALF, "other", "a/b/other", 2, purifier="diffpure")
    assert rows(tmp_path, over=["a/b/other"])[0]["verdict"].startswith("open: the intervals overlap")


@pytest.mark.parametrize("name", TABLES)
def test_every_claim_names_experiments_that_exist_and_a_number_that_its_paper_prints(name):
    table = paper.load(name)
    printed = " ".join(
        file.read_text() for file in (CONF / "table" / name.split("/")[0]).glob("*.yaml") if file.stem != "claims"
    )
    for claim in table["claims"]:
        for experiment in claims._names(claim):
            assert (CONF / "experiment" / f"{experiment}.yaml").is_file(), experiment
        said = claim["published"]
        shown = said if isinstance(said, str) else f"{said:.2f}".removesuffix(".00")
        if "over" in claim and not isinstance(said, str):  # a difference of two printed numbers, which the claim names
            low, high = sorted(
                word.strip(",:()")
                for word in claim["claim"].split()
                if word.strip(",:()").count(".") == 1 and len(word.strip(",:()")) == 5
            )
            assert f"{float(high) - float(low):.2f}" == f"{said:.2f}"
            assert low in printed
            assert high in printed
        else:
            assert shown in printed, claim["claim"]
