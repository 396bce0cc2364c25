"""Tables and figures of images with several labels, from real records of a few scenes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cells import called, run

from lgap_bench.metric.labels import mean_average_precision, success, worth
from lgap_bench.record import records
from lgap_bench.report.command import item
from lgap_bench.report.pages.strata import _bounds
from lgap_bench.report.rows import Merger, merge

SMALL = ["dataset=scenes", "n=8", "chunk=8", "score_draws=2", "threads=1"]  # an experiment under its own attack
PAPER = "conditioned_denoising"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Records of the paper's first rows, at two strengths and two seeds."""
    out = tmp_path_factory.mktemp("scenes") / "out"
    for seed in (0, 1):
        for name in ("table/undefended", "table/inpaint", "table/inpaint_unmasked"):
            run([f"experiment={PAPER}/{name}", *SMALL, f"seed={seed}", f"outputs={out}"])
    for eps in (0.05, 0.2):
        run([f"experiment={PAPER}/attacks/pgd", *SMALL, f"threat.eps={eps}", f"outputs={out}"])
    return out


def found(outputs: Path, purifier: str) -> list:
    return [
        each
        for each in records(outputs)
        if each.summary()["purifier_name"] == purifier and "16/255" in each.summary()["eps"]
    ]


def test_a_row_is_the_metrics_over_seeds_draws_and_images(outputs):
    cells = found(outputs, "inpaint")
    assert len(cells) == 2
    row = merge(cells)
    samples = [each.samples() for each in cells]
    truth = np.asarray(samples[0]["labels"], bool)
    attacked, clean = (
        np.concatenate([np.asarray(each[f"{name}_scores"], np.float32).swapaxes(0, 1) for each in samples])
        for name in ("attacked", "clean")
    )
    assert attacked.shape == (4, 8, 10)
    threshold = cells[0].summary()["labels"]["threshold"]
    assert row["map"] == pytest.approx(worth(attacked, truth, threshold)["map"])
    assert row["precision"] == pytest.approx(worth(attacked, truth, threshold)["precision_macro"])
    assert row["success"] == pytest.approx(success(clean, attacked, truth)["not_in_image"]["mean"])
    assert row["success"] == pytest.approx(100 - row["robust"]), "two names of one thing"
    each = [merge([cell])["success_of_correct"] for cell in cells]
    assert row["success_of_correct"] == pytest.approx(np.mean(each)), "more seeds are no other measure"


def test_one_threshold_for_all_purifiers_of_a_classifier(outputs):
    assert len({each.summary()["labels"]["threshold"] for each in records(outputs)}) == 1


def test_an_upper_bound_of_precision_is_a_lower_bound_of_success(outputs):
    (page,) = item(f"{PAPER}/figure3", outputs, "scenes")
    (row,) = [row for row in page.tables[0].rows if row.get("purifier") == "inpaint"]
    from lgap_bench.report.page import shown

    assert shown(row["precision"]).startswith("≤ ")
    assert shown(row["success"]).startswith("≥ ")
    assert row["paper_precision"] == "72.00"


def test_the_figures_are_drawn_and_the_differences_are_points_and_relative(outputs, tmp_path):
    done = called("report", f"table={PAPER}/figure3", "dataset=scenes", f"outputs={outputs}")
    assert done.returncode == 0, done.stderr
    assert (outputs / "tables" / "conditioned_denoising-figure3-scenes.png").stat().st_size > 10_000
    with (outputs / "tables" / "conditioned_denoising-figure3-scenes.csv").open() as stream:
        rows = {row["row"]: row for row in csv.DictReader(stream)}
    assert float(rows["inpainted, detected region (3.2)"]["precision_low"]) <= float(
        rows["inpainted, detected region (3.2)"]["precision_high"]
    )
    (page,) = item(f"{PAPER}/ablations", outputs, "scenes")
    (difference,) = page.tables[1].rows
    first, second = (merge(found(outputs, name))["precision"] for name in ("inpaint", "inpaint_unmasked"))
    assert difference["points"] == f"{float(first) - float(second):+.1f}"
    assert difference["published"] == "+18 %"


def test_a_curve_of_success_over_strength(outputs):
    (page,) = item(f"{PAPER}/figure2", outputs, "scenes")
    points = page.data[0].rows
    assert [point["value"] for point in points] == [0.05, 0.2]
    assert points[0]["success"] <= points[1]["success"]
    assert page.figures[0].draw() is not None


def test_records_are_split_by_objects_per_image(outputs):
    (page,) = item(f"{PAPER}/dense", outputs, "scenes")
    lines = [line for line in page.tables[0].rows if line["row"] == "none"]
    assert sum(line["images"] for line in lines) == 8
    weighted = sum(line["images"] * line["natural"] for line in lines) / 8
    assert weighted == pytest.approx(merge(found(outputs, "none"))["natural"])
    assert _bounds(np.arange(1, 101)) == [(1, 25), (26, 50), (51, 75), (76, 100)]
    assert _bounds(np.array([2, 2, 5])) == [(2, 2), (5, 5)]


def test_a_table_by_objects_without_a_record_says_what_to_run(tmp_path):
    with pytest.raises(ValueError, match="run lgap-bench tables conditioned_denoising/figure3"):
        item(f"{PAPER}/dense", tmp_path, "scenes")


def test_the_grid_shows_what_is_regenerated(outputs):
    (page,) = item(f"{PAPER}/figure4", outputs, "scenes")
    assert page.figures[0].draw() is not None
    pictures = found(outputs, "inpaint")[0].pictures()
    assert pictures["region_attacked"].shape == pictures["attacked"].shape
    assert not np.allclose(pictures["region_attacked"], pictures["attacked"])


def test_several_items_ask_for_a_row_once(outputs):
    class Counted(Merger):
        asked = 0

        def __call__(self, cells):
            Counted.asked += 1
            return super().__call__(cells)

    shared = Counted()
    (first,) = item(f"{PAPER}/figure3", outputs, "scenes", shared)
    assert Counted.asked == len([row for row in first.data[0].rows if row.get("records")]), "each row by the one given"
    assert first == replace(item(f"{PAPER}/figure3", outputs, "scenes")[0], figures=first.figures)


def test_rows_without_intervals_are_the_same_rows(outputs):
    samples = found(outputs, "inpaint")[0].samples()
    scores, truth = (
        np.asarray(samples["attacked_scores"], np.float32).swapaxes(0, 1),
        np.asarray(samples["labels"], bool),
    )
    whole, bare = worth(scores, truth, 0.5), worth(scores, truth, 0.5, intervals=False)
    assert bare == {key: value for key, value in whole.items() if not key.endswith(("_low", "_high"))}
    assert whole["map_low"] <= whole["map"] <= whole["map_high"]
    assert mean_average_precision(scores, truth) == whole["map"]
