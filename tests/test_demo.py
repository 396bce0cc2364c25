"""The demo's sentences come from its table, whatever the numbers say."""

from lgap_bench.demo import PICTURED, ROWS, lesson
from lgap_bench.report.page import AtMost
from lgap_bench.report.pages.all import COLUMNS
from lgap_bench.report.write import as_text


def test_the_lesson_reads_the_tables_numbers():
    rows = {
        title: {"robust": AtMost(90.0 - 10 * i), "any_of_k": 5.0, "natural_any_of_k": 66.0}
        for i, title in enumerate(ROWS.values())
    }
    first, second = lesson(rows)
    assert "≤ 50.0 %" in first
    assert "≤ 80.0 %" in first
    assert "≤ 40.0 %" in second
    assert "≤ 20.0 %" in second
    assert " 5.0 %" in second
    assert "66.0 %" in second  # the control: what the same count says on clean images


def test_every_row_of_the_demo_is_an_experiment_and_the_pictured_ones_are_rows():
    from lgap_bench import CONF

    assert {file.stem for file in (CONF / "experiment" / "demo").glob("*.yaml")} == set(ROWS)
    assert set(PICTURED) <= set(ROWS)


def test_the_text_table_aligns_numbers_and_marks_missing_values():
    text = as_text([{"row": "a", "robust": 5.0}, {"row": "long name", "robust": None}], ("row", "robust"))
    assert text.splitlines() == ["row        robust", "---------  ------", "a             5.0", "long name       -"]


def test_the_csv_has_the_promised_columns():
    assert COLUMNS == (
        "row", "purifier", "attack", "view", "eps", "n", "natural", "robust", "robust_low", "robust_high", "any_of_k",
        "verdict", "caption_label_clean", "caption_label_attacked", "seconds",
    )  # fmt: skip
