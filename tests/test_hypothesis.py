"""Paired tests against closed forms and brute force, and in a table: what is tested are rows on the same images, once each."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from cells import called
from scipy import stats
from test_compare import finding
from test_paper_tables import ALL, HALF, NONE, N, record

from lgap_bench.metric import hypothesis
from lgap_bench.metric.hypothesis import holm, mcnemar, sign_flip
from lgap_bench.report.command import item
from lgap_bench.report.pages import paper
from lgap_bench.report.tested import COLUMNS, paired_tests


def brute(differences: list[int]) -> float:
    """All signs, one by one."""
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in product((-1, 1), repeat=len(differences))]  # fmt: skip
    return float(np.mean(np.asarray(sums) >= abs(sum(differences))))


@pytest.mark.parametrize("differences", [[3, 1, -2, 4, 0, 5], [1] * 10, [-7, 2, 2, 2], [10, -10, 1], [0, 0], [], [4]])
def test_sign_flips_are_all_counted(differences):
    assert sign_flip(np.asarray(differences, int)) == pytest.approx(brute(differences))


def test_ten_images_that_all_moved_one_way_have_two_in_a_thousand():
    assert sign_flip(np.ones(10, int)) == pytest.approx(2 / 2**10)


def test_of_single_draws_the_two_tests_are_one():
    """Differences of -1, 0 and 1 are discordant pairs."""
    random = np.random.default_rng(0)
    for _ in range(20):
        first, second = random.random((2, 40)) < [[0.7], [0.5]]
        assert sign_flip(first.astype(int) - second.astype(int)) == pytest.approx(mcnemar(first, second)[2])


def test_mcnemar_is_the_binomial_test_of_discordant_pairs():
    for only_first, only_second in ((0, 0), (1, 0), (8, 2), (3, 3), (40, 15), (0, 200)):
        first = np.asarray([True] * only_first + [False] * only_second + [True, False])
        second = np.asarray([False] * only_first + [True] * only_second + [True, False])
        p = stats.binomtest(only_first, only_first + only_second).pvalue if only_first + only_second else 1.0
        assert mcnemar(first, second) == (only_first, only_second, pytest.approx(p))


def test_the_normal_distribution_takes_over_without_a_jump(monkeypatch):
    differences = np.random.default_rng(0).integers(-10, 12, 800)
    exact = sign_flip(differences)
    monkeypatch.setattr(hypothesis, "MOST", 0)
    assert sign_flip(differences) == pytest.approx(exact, rel=0.05)


def test_rows_that_do_not_differ_are_called_different_no_more_than_once_in_twenty():
    random = np.random.default_rng(1)
    rates = random.beta(0.3, 0.3, 40)
    found = [sign_flip(np.subtract(*random.binomial(10, rates, (2, 40)))) for _ in range(600)]
    assert np.mean(np.asarray(found) < 0.05) < 0.075
    assert np.mean(np.asarray(found) < 0.5) > 0.4  # and the test is no more cautious than it has to be


def test_holms_correction_is_the_textbooks():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def three(outputs: Path) -> None:
    """Rows of LGAP's table 1, all right, half of the draws right and none right, the second with an image that failed."""
    for experiment, right, failed in (
        ("raw", NONE, None),
        ("lgap", ALL, None),
        ("lgap_not_finetuned", HALF, [True] + [False] * (N - 1)),
    ):
        record(outputs, "pgd", right, [0] * N, experiment=f"lgap/table1/{experiment}", failed=failed, attack=experiment)


def found(outputs: Path) -> list[dict]:
    return paired_tests(paper.tables("lgap/1", outputs)["digits"], outputs)


def test_every_pair_of_measured_rows_is_tested_once_on_the_images_that_both_have(tmp_path):
    three(tmp_path)
    lines = found(tmp_path)
    assert len(lines) == 3
    assert len({line["pair"] for line in lines}) == 3
    assert {line["images"] for line in lines} == {N, N - 1}
    (sure,) = (line for line in lines if abs(line["points"]) == 100)
    assert {sure["only_first"], sure["only_second"]} == {0, N}
    assert sure["sign_flip"] == sure["mcnemar"] == pytest.approx(2 / 2**N)
    assert all(line["sign_flip_holm"] >= line["sign_flip"] for line in lines)


def test_another_budget_or_another_number_of_images_is_not_paired(tmp_path):
    three(tmp_path)
    rows = paper.tables("lgap/1", tmp_path)["digits"]
    changed = [{**row, "eps": row["row"]} for row in rows]
    assert paired_tests(changed, tmp_path) == []
    assert paired_tests(rows, tmp_path)


def test_the_worst_of_several_is_not_tested_against_its_own_members(tmp_path):
    three(tmp_path)
    rows = [row for row in paper.tables("lgap/1", tmp_path)["digits"] if row.get("records")]
    both = {**rows[0], "row": "worst", "records": f"{rows[0]['records']} {rows[1]['records']}"}
    pairs = [line["pair"] for line in paired_tests([*rows, both], tmp_path)]
    assert [pair for pair in pairs if "worst" in pair] == [f"{rows[2]['row']} - worst"]


def test_a_row_that_stands_there_twice_counts_once(tmp_path):
    three(tmp_path)
    rows = paper.tables("lgap/1", tmp_path)["digits"]
    assert len(paired_tests([*rows, *rows], tmp_path)) == 3


def test_in_a_table_of_purifiers_and_attacks_purifiers_are_paired_under_one_attack(tmp_path):
    for purifier, attack, right in (("coup", "blind", ALL), ("coup", "bpda", HALF), ("diffpure", "blind", NONE)):
        finding(tmp_path, purifier, attack, right)
    (page,) = item("coup/finding", tmp_path, "digits")
    pairs = [line["pair"] for line in paired_tests(page.data[0].rows, tmp_path)]
    assert pairs == ["diffpure, blind - coup, blind"]


def test_report_prints_and_exports_the_tests_where_they_are_asked_for(tmp_path):
    three(tmp_path)
    plain = called("report", "table=lgap/1", "dataset=digits", f"outputs={tmp_path}")
    assert "sign_flip" not in plain.stdout
    done = called("report", "table=lgap/1", "dataset=digits", f"outputs={tmp_path}", "paired=true")
    assert done.returncode == 0, done.stderr
    assert "sign_flip_holm" in done.stdout
    with (tmp_path / "tables" / "lgap-1-digits_paired.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(COLUMNS)
    assert [float(row["sign_flip"]) for row in rows] == [line["sign_flip"] for line in found(tmp_path)]
    for form in ("md", "latex", "csv", "html"):
        assert called("report", "table=lgap/1", f"outputs={tmp_path}", "paired=true", f"format={form}").returncode == 0


def test_bad_words_are_one_line(tmp_path):
    for words, said in (
        (("table=lgap/1", "paired=yes"), "paired=yes is not known"),
        (("paired=true",), "without a table"),
    ):
        done = called("report", *words, f"outputs={tmp_path}")
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
