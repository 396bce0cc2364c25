"""Seconds by depth (COUP, table 4): composed as cells are, the depths that the step length divides, published values beside."""

import sys

import pytest

from scripts.coup import growth, times


def test_a_table_and_a_figure_with_the_depths_that_exist_here(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(times, "DEPTHS", (0.0, 0.001, 0.05))
    published = {name: times.PUBLISHED[name][:3] for name in ("diffpure", "coup")}
    monkeypatch.setattr(times, "PUBLISHED", published)
    monkeypatch.setattr(times, "UNIT", 0.05)
    monkeypatch.setattr(sys, "argv", ["times", "images=2", "repeats=1", f"outputs={tmp_path}"])
    times.main()
    page = capsys.readouterr().out
    assert "| coup |" in page
    assert "3.894" in page, "the published seconds of COUP at 0.05"
    coup = next(line for line in page.splitlines() if line.startswith("| coup |")).split("|")
    assert coup[4].strip() == "-", "0.001 is no multiple of the miniature's step"
    assert float(coup[6]) > 0
    assert (tmp_path / "figures" / "coup_times.png").stat().st_size > 1000


@pytest.mark.parametrize("argument", ["repeats=0", "images=0", "images=many"])
def test_counts_that_are_none_are_refused_in_one_line(argument, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["times", argument])
    with pytest.raises(ValueError, match=rf"^{argument.split('=')[0]}=.* whole number"):
        times.main()


def test_an_argument_that_is_no_setting_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["times", "images=1", "repeats=1", "--device", "cuda"])
    with pytest.raises(ValueError, match=r"^--device is no key=value"):
        times.main()


@pytest.mark.parametrize("gradient", [[], ["--gradient"]])
def test_growth_is_measured_by_purifier_and_rows_of_a_pass(gradient, monkeypatch, capsys):
    monkeypatch.setattr(growth, "SIZES", (2, 3))
    given = ["1", "--purifiers", "coup_unguided,coup", "--rows", "2", "8", *gradient]
    monkeypatch.setattr(sys, "argv", ["growth", *given])
    growth.main()
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(line[1].strip(), line[2].strip()) for line in lines] == [
        ("coup_unguided", "2"),
        ("coup_unguided", "8"),
        ("coup", "2"),
        ("coup", "8"),
    ]
    assert all(float(cost) > 0 for line in lines for cost in line[3:5])
