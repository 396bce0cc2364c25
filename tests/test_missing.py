"""What a table lacks says what makes it: cells that were not run, begun ones, and the commands of both."""

from __future__ import annotations

import shlex

import pytest
from cells import SMALL, called
from test_compare import curve, finding
from test_paper_tables import ALL, HALF, N, record

from lgap_bench.cell.compose import resolved
from lgap_bench.report.command import item
from lgap_bench.report.missing import command, planned
from lgap_bench.report.page import Empty, shown
from lgap_bench.report.pages import paper
from lgap_bench.report.write import text

BLIND = "lgap/table1/lgap_not_finetuned"


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """One of two shards of a real cell."""
    outputs = tmp_path_factory.mktemp("half")
    words = [f"experiment={BLIND}", "dataset=digits", *SMALL, f"outputs={outputs}"]
    done = called("run", *words, "shard=0", "shards=2")
    assert done.returncode == 0, done.stderr
    return outputs


def test_a_cell_with_a_missing_shard_is_partial_and_its_command_makes_it_whole(half):
    (page,) = item("lgap/1", half)
    (row,) = [each for each in page.tables[0].rows if each.get("experiment") == BLIND]
    assert (row["natural"], row["robust"], row["differs"]) == (Empty.PARTIAL, Empty.PARTIAL, "1 of 2 chunks")
    assert not page.measured, "what is not whole is no measurement"
    assert "`partial` begun, some of its chunks are missing" in text(page)
    (note,) = [each for each in page.notes if each.startswith("partial: ")]
    assert note.startswith(f"partial: {BLIND} (lgap, seed 0), 1 of 2 chunks: `{row['to_run']}` goes on")
    words = shlex.split(row["to_run"])
    assert words[:2] == ["lgap-bench", "run"]
    assert called(*words[1:], f"outputs={half}", "threads=1").returncode == 0
    (page,) = item("lgap/1", half)
    (row,) = [each for each in page.tables[0].rows if each.get("experiment") == BLIND]
    assert page.measured
    assert (row["state"], row["n"]) == ("measured", 8)
    assert not [each for each in page.notes if each.startswith("partial: ")]


def test_without_a_record_a_table_has_the_published_values_and_the_commands(tmp_path):
    for dataset, words in ((None, "Nothing measured"), ("digits", "Nothing measured on digits")):
        (page,) = item("lgap/2", tmp_path, dataset)
        assert (page.settings, page.measured) == (words, False)
        rows = {row["row"]: row for row in page.tables[0].rows}
        assert (rows["LGAP"]["paper_robust"], rows["LGAP"]["robust"]) == ("39.82", Empty.NOT_RUN)
        assert rows["LGAP"]["to_run"] == command(["lgap/table2/lgap"], dataset=dataset)
        assert "Published values: Singh and Subramanyam 2023, table 2" in page.notes


@pytest.mark.parametrize("name", [name for name in paper.known() if paper.experiments(paper.load(name))])
def test_every_row_that_is_not_run_has_a_command_that_composes(name, tmp_path):
    (page,) = item(name, tmp_path)
    missing = [row for row in page.tables[0].rows if row.get("robust") is Empty.NOT_RUN]
    assert missing
    for row in missing:
        words = shlex.split(row["to_run"])
        for experiment in words[-1].removeprefix("experiment=").split(","):
            resolved([f"experiment={experiment}"])
        assert (words[:2], "-m" in words) == (["lgap-bench", "run"], "," in words[-1])


def test_a_budget_that_rows_differ_in_is_a_column(tmp_path):
    record(tmp_path, "pgd", ALL, [0] * N, 0, "lgap/table1/lgap")
    (page,) = item("lgap/1", tmp_path)
    assert not {"norm", "eps"} & set(page.tables[0].columns)
    assert page.settings == f"Measured on: digits, linf 8/255, n = {N}, 1 seed"
    assert {"verdict", "any_of_k", "natural_any_of_k", "majority_of_k", "natural_majority_of_k"} <= set(page.tables[0].columns)  # fmt: skip
    record(tmp_path, "pgd", HALF, [0] * N, 0, "lgap/table1/lgap_release_eps", facts={"eps": "8/256"}, threat={"eps": "8/256"})  # fmt: skip
    (page,) = item("lgap/1", tmp_path)
    assert "eps" in page.tables[0].columns
    assert "norm" not in page.tables[0].columns


def test_purifiers_x_attacks_say_what_is_not_run_and_what_nobody_meant_to(tmp_path):
    finding(tmp_path, "coup", "blind", ALL)
    finding(tmp_path, "diffpure", "full_detached", ALL)
    (page,) = item("coup/finding", tmp_path)
    mean, *_, left = page.tables
    rows = {row["purifier"]: row for row in mean.rows}
    assert rows["coup"]["full_detached"] is Empty.NOT_RUN
    assert rows["diffpure"]["blind"] is Empty.NOT_RUN
    assert shown(rows["coup"]["worst"] if "worst" in mean.columns else None) == "-"
    assert rows["coup"]["records"], "a row names its records, each number's are among them"
    assert "records" not in mean.columns
    calls = {line["missing"].split(",")[0]: line["to_run"] for line in left.rows}
    assert "experiment=coup/finding/blind,coup/finding/bpda," in calls["diffpure"]
    assert "full_detached" in calls["coup"]
    assert "coup/finding/full_detached" not in calls["diffpure"], "no grid plans it, and it is there"
    assert calls["coup"].endswith(f"purifier=coup threat.eps=48/255 n={N} seed=0 dataset=digits")


def test_a_curve_names_the_values_that_are_not_run(tmp_path):
    curve(tmp_path, 0.1, HALF)
    (page,) = item("coup/figure4a", tmp_path)
    rows = [(row["value"], row["robust"]) for row in page.tables[0].rows]
    assert rows == [("0.1", 50.0), *((value, Empty.NOT_RUN) for value in ("0.05", "0.2", "0.3"))]
    assert page.tables[0].rows[1]["to_run"] == "lgap-bench run experiment=coup/figure4/t_star purifier.t_star=0.05 dataset=digits"  # fmt: skip


def test_grids_are_read_at_the_scale_of_the_data_set():
    table = {"grids": {"miniature": [["experiment=a/b", "n=1", "seed=0,1"]], "paper": [["experiment=a/b"]]}}
    assert planned(table, "digits") == [{"experiment": "a/b", "n": "1", "seed": "0"}, {"experiment": "a/b", "n": "1", "seed": "1"}]  # fmt: skip
    assert planned(table, "cifar10") == [{"experiment": "a/b"}]
    assert planned({}, "digits") == []


def test_a_flag_may_stand_between_keys(tmp_path):
    record(tmp_path, "pgd", ALL, [0] * N, 0, "lgap/table1/lgap")
    for words in (["--markdown", "table=lgap/1"], ["table=lgap/1", "--markdown", "dataset=digits"]):
        done = called("report", f"outputs={tmp_path}", *words, "paired=false")
        assert done.returncode == 0, done.stderr
        assert "| LGAP | 90.03 |" in done.stdout
    file = tmp_path / "all.csv"
    assert called("report", f"outputs={tmp_path}", "--csv", str(file), "format=csv").returncode == 0
    assert file.exists()
