"""Verdicts: every check fires on what it is made for and is silent beside it, and a broken attack is never called sound."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cells import called, run
from test_paper_tables import ALL
from test_paper_tables import record as by_hand

from lgap_bench.cell.compose import resolved
from lgap_bench.cell.config import Cell
from lgap_bench.evaluation.lower import compare
from lgap_bench.evaluation.verdict import CHECKS, Facts, verdict
from lgap_bench.record import Record
from lgap_bench.runtime.files import content_id
from scripts.trust import matrix

N = 4


def chunk(**columns: Any) -> dict[str, Any]:
    """Four samples, of which the first two held."""
    right = np.asarray([[1.0, 1.0, -1.0, -1.0]])
    return {"id": np.arange(N), "attacked_margin": right, **{key: np.asarray(value) for key, value in columns.items()}}


def found(
    words: list[str], columns: dict[str, Any] | None = None, randomized: bool = False, **numbers: Any
) -> list[str]:
    """The checks that fire on made-up facts of a cell."""
    cell: Cell = replace(resolved(words), n=N)
    summary = {"failed": 0, "undefended_natural": 96.0, "classes": list("0123456789"), **numbers}
    said = verdict(Facts(cell, randomized, [chunk(**columns or {})], summary))
    fired = [reason["check"] for reason in said["reasons"]]
    assert (said["verdict"] == "sound") is (fired == []), said
    return fired


FULL, ENSEMBLE = ["purifier=none", "attack=full"], ["purifier=none", "attack=full_ensemble"]
YES = [True, True, False, False]  # on the samples that held
NO = [False, False, True, True]  # on those that are broken already
# check: (cell, columns, randomized, numbers) that it is made for; beside it, where it has to stay silent.
INPAINT = ["dataset=scenes", "purifier=inpaint"]
CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "failed samples": ([FULL, {}, False, {"failed": 1}], [FULL, {}, False, {}]),
    "undefended classifier": ([FULL, {}, False, {"undefended_natural": 10.0}], [FULL, {}, False, {"undefended_natural": 10.1}]),
    "view": ([["purifier=coup", "attack=bpda"], {}, False, {}], [["purifier=none", "attack=bpda"], {}, False, {}]),
    "attack": ([["purifier=none", "attack=fgsm"], {}, False, {}], [["purifier=none", "attack=pgd"], {}, False, {}]),
    "EOT": ([["purifier=coup", "attack=full", "attack.draws=1"], {}, True, {}], [["purifier=coup", "attack=full", "attack.draws=2"], {}, True, {}]),
    "captioner": ([["purifier=lgap", "attack=full"], {}, False, {}], [["purifier=lgap", "attack=full_joint"], {}, False, {}]),
    "detector": ([[*INPAINT, "attack=full"], {}, False, {}], [[*INPAINT, "attack=full_detector"], {}, False, {}]),
    "regenerated region": ([[*INPAINT, "attack=full_detector"], {"zero_pixels": [0.1, 0.1, 0, 0], "clean_region": [0.3] * N}, False, {}],
                           [[*INPAINT, "attack=full_detector"], {"zero_pixels": [0.01, 0.01, 1, 1], "clean_region": [0.3] * N}, False, {}]),
    "zero gradients": ([FULL, {"zero_gradient": YES}, False, {}], [FULL, {"zero_gradient": NO}, False, {}]),
    "zero pixels": ([FULL, {"zero_pixels": [0.6, 0.6, 0, 0]}, False, {}], [FULL, {"zero_pixels": [0.4, 0.4, 1, 1]}, False, {}]),
    "flat margin": ([FULL, {}, False, {"flat_margin": 60.0}], [FULL, {}, False, {"flat_margin": 50.0}]),
    "finite differences": ([FULL, {}, False, {"slope_ratio": 0.4}], [FULL, {}, False, {"slope_ratio": 1.1}]),
    "unmoved images": ([FULL, {"unmoved_reachable": [True, False, False, False]}, False, {}], [FULL, {"unmoved_reachable": [False] * N}, False, {}]),
    "convergence": ([FULL, {"loss_rise": [0.2, 0.2, 0, 0]}, False, {}], [FULL, {"loss_rise": [0.01, 0.01, 1, 1]}, False, {}]),
    "lost successes": ([FULL, {"lost_success": [True, False, False, False]}, False, {}], [FULL, {"lost_success": NO}, False, {}]),
    "library warnings": ([FULL, {"notes": ["13 points with zero gradient"]}, False, {}], [ENSEMBLE, {"notes": ["13 points"]}, False, {}]),
}  # fmt: skip


@pytest.mark.parametrize("check", CASES)
def test_a_check_fires_where_it_has_to_and_nowhere_beside(check):
    for (words, columns, randomized, numbers), expected in zip(CASES[check], ([check], []), strict=True):
        assert found(words, columns, randomized, **numbers) == expected


def test_every_check_has_a_case():
    assert len(CASES) == len(CHECKS)


@pytest.mark.parametrize(
    "case",
    [
        (["purifier=coup", "attack=pgd"], {}, True, {}),  # its view alone says that it is a bound
        (ENSEMBLE, {"zero_gradient": NO}, False, {"slope_ratio": 0.1}),  # it searches too
        (FULL, {"loss_rise": [np.nan, np.nan, 1, 1]}, False, {}),
        (FULL, {"attacked_margin": [[-1.0] * N], "zero_gradient": [True] * N, "zero_pixels": [1.0] * N, "loss_rise": [1.0] * N}, False, {"flat_margin": 100.0, "slope_ratio": 9.0}),
    ],
    ids=["blind", "ensemble", "nothing traced", "nothing held"],
)  # fmt: skip
def test_what_says_nothing_about_the_number_is_no_reason(case):
    words, columns, randomized, numbers = case
    assert [each for each in found(words, columns, randomized, **numbers) if each != "view"] == []


@pytest.mark.parametrize(
    "numbers, value",
    [
        ({"failed": 1}, "invalid"),  # of four
        ({"undefended_natural": 3.0, "slope_ratio": 0.1}, "invalid"),
        ({"slope_ratio": 0.1}, "upper bound"),
        ({}, "sound"),
    ],
)
def test_the_worst_reason_decides(numbers, value):
    summary = {"failed": 0, "undefended_natural": 96.0, "classes": list("0123456789"), **numbers}
    assert verdict(Facts(replace(resolved(FULL), n=N), False, [chunk()], summary))["verdict"] == value


# Below here whole cells, as a user runs them.

Known = Callable[..., list[str]]


@pytest.fixture
def known(tmp_path: Path) -> Known:
    """`known("Quantise", levels=4)`: the words for a cell of a purifier whose truth is known."""

    def choose(code: str, *words: str, **keys: Any) -> list[str]:
        folder = tmp_path / "conf" / "purifier"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{code.lower()}.yaml").write_text(yaml.safe_dump({"_target_": f"{matrix.CODE}.{code}", **keys}))
        return [
            f"hydra.searchpath=[file://{tmp_path}/conf]", f"purifier={code.lower()}", f"outputs={tmp_path}/out", "n=8",
            "chunk=8", "score_draws=2", "threads=1", "threat.eps=48/255", *words,
        ]  # fmt: skip

    return choose


def checks(record: Record) -> list[str]:
    return [reason["check"] for reason in record.summary()["reasons"]]


def robust(record: Record) -> float:
    return record.summary()["robust"]["mean"]


QUICK_ENSEMBLE = matrix.SHORT["full_ensemble"]
STANDARD = ["purifier=none", "n=8", "chunk=8", "threads=1", "threat.eps=48/255"]


def test_a_quantiser_under_full_is_an_upper_bound_by_its_zero_gradients(known):
    record = run(known("Quantise", "attack=full", levels=4))
    assert robust(record) > 50, "the attack broke it, and there is nothing to tell"
    assert record.verdict()[0] == "upper bound"
    assert "zero gradients" in checks(record)


def test_an_identity_without_gradient_is_refused_under_full_and_broken_by_the_ensemble(known):
    with pytest.raises(ValueError, match="promises a gradient"):
        run(known("Detach", "attack=full"))
    assert robust(run(known("Detach", "attack=full_ensemble", *QUICK_ENSEMBLE))) == 0


def test_a_shattered_gradient_is_told_by_finite_differences(known):
    record = run(known("Ripple", "attack=full"))
    assert "finite differences" in checks(record)
    assert record.verdict()[0] == "upper bound"


def test_the_bare_classifier_under_full_is_sound(tmp_path):
    record = run([*STANDARD, "attack=full", f"outputs={tmp_path}"])
    assert (record.verdict(), robust(record)) == (("sound", []), 0)


def test_bpda_on_lgap_is_an_upper_bound_by_its_view(tmp_path):
    words = ["purifier=lgap", "attack=bpda", "attack.steps=1", "n=2", "chunk=2", "score_draws=2", "threads=1"]
    assert "view" in checks(run([*words, f"outputs={tmp_path}"]))


def test_a_captioner_that_was_not_attacked_makes_an_upper_bound(tmp_path):
    words = ["purifier=lgap", "attack=full", "attack.steps=1", "n=2", "chunk=2", "score_draws=2", "threads=1"]
    record = run([*words, f"outputs={tmp_path}"])
    assert "captioner" in checks(record)
    assert record.verdict()[0] == "upper bound"


def test_too_few_small_steps_have_not_converged(tmp_path):
    record = run([*STANDARD, "attack=full", "attack.steps=2", "attack.step_size=eps/50", f"outputs={tmp_path}"])
    assert robust(record) > 50
    assert "convergence" in checks(record)


def test_one_draw_on_loud_noise_makes_an_upper_bound(known):
    record = run(known("Jitter", "attack=full", "attack.draws=1", "attack.steps=3", std=0.2))
    assert "EOT" in checks(record)


def test_a_stronger_attack_makes_a_bound_of_an_earlier_number_on_the_screen_and_in_the_report(tmp_path):
    few, out = ["attack=full", "attack.steps=1", "attack.step_size=eps/50"], f"outputs={tmp_path}"
    earlier = run([*STANDARD, *few, out])
    held = robust(earlier)
    assert held > 50
    later = run([*STANDARD, "attack=full", out])
    assert earlier.lower() == {"attack": "full", "view": "full", "robust": 0.0, "record": later.folder.name}
    assert later.lower() is None, "the lower number was lowered by the higher"
    assert earlier.verdict()[0] == "upper bound"
    screen = called("run", *STANDARD, *few, out)
    assert "(view full) found 0.0 on the same images" in screen.stdout, screen.stderr
    assert f"≤{held:5.1f}" in screen.stdout
    table = tmp_path / "all.csv"
    shown = called("report", f"--outputs={tmp_path}", f"--csv={table}")
    assert f"≤ {held:.1f}" in shown.stdout, shown.stderr
    assert "an upper bound: a stronger attack exists" in shown.stdout
    with table.open() as stream:
        rows = {row["records"]: row for row in csv.DictReader(stream)}
    assert rows[earlier.folder.name]["verdict"] == "upper bound"
    assert "found 0.0 on the same images" in rows[earlier.folder.name]["reasons"]
    assert (rows[later.folder.name]["verdict"], rows[later.folder.name]["reasons"]) == ("sound", "")
    assert float(rows[earlier.folder.name]["robust"]) == held, "programs get the number itself"


@pytest.mark.parametrize("other", ["n=6", "threat.eps=47/255", "classifier=digits/adversarial", "dtype=float64"])
def test_a_number_of_other_images_budget_or_defense_lowers_nothing(tmp_path, other):
    out = f"outputs={tmp_path}"
    earlier = run([*STANDARD, "attack=full", "attack.steps=1", "attack.step_size=eps/50", out])
    run([*STANDARD, "attack=full", out, other])
    assert earlier.lower() is None


def test_a_number_of_a_purifier_whose_code_was_edited_since_lowers_nothing(tmp_path, monkeypatch):
    """Both records are of `purifier=mine`; what it does is another thing."""
    (tmp_path / "conf" / "purifier").mkdir(parents=True)
    (tmp_path / "conf" / "purifier" / "mine.yaml").write_text("_target_: edited_since.Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "from lgap_bench.purifier.base import Purifier\n\n\nclass Mine(Purifier):\n    shade = {}\n"
    words = [*STANDARD[1:], "purifier=mine", f"hydra.searchpath=[file://{tmp_path}/conf]", f"outputs={tmp_path}/out"]
    (tmp_path / "edited_since.py").write_text(source.format(1))
    earlier = run([*words, "attack=full", "attack.steps=1", "attack.step_size=eps/50"])
    again = run([*words, "attack=full", "attack.steps=2", "attack.step_size=eps/2"])
    assert earlier.lower()["record"] == again.folder.name
    (earlier.folder / "lower.json").unlink()
    (tmp_path / "edited_since.py").write_text(source.format(2))
    later = run([*words, "attack=full"])
    assert robust(later) < robust(earlier)
    compare(later, tmp_path / "out")
    assert earlier.lower() is None, "another purifier's number"


def test_a_papers_table_prints_an_upper_bound_as_one_and_exports_why(tmp_path):
    made = by_hand(tmp_path, "pgd", ALL, [0] * 4, 0, "lgap/table1/lgap")
    made = Record(made.folder.rename(made.folder.with_name(content_id(made.identity()))))  # as a cell's own is called
    made.note_lower("full", "full", 25.0, "another")
    done = called("report", "table=lgap/1", f"outputs={tmp_path}")
    assert "≤ 100.0" in done.stdout, done.stderr
    (file,) = tmp_path.rglob("*lgap-1*digits*.csv")
    with file.open() as stream:
        (row,) = [row for row in csv.DictReader(stream) if row["records"] == made.folder.name]
    assert (row["robust"], row["verdict"]) == ("100.0", "upper bound")
    assert "full (view full) found 25.0" in row["reasons"]


@pytest.mark.slow
def test_the_matrix_has_no_wrong_cell(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        matrix.main(
            ["--quick", f"outputs={tmp_path}", "quantise to 4 levels", "identity with detach", "standard classifier"]
        )
    said = capsys.readouterr().out
    assert ended.value.code == 0, said
    assert "0 wrong cells" in said
    assert said.count("\n| ") == 4, "a header and three rows"
    assert "| identity with detach | 0.0 | refused |" in said


def test_a_matrix_would_call_a_wrong_cell_wrong():
    zero = matrix.Defense()
    assert matrix.wrong(zero, 50.0, "sound", 8)
    assert not matrix.wrong(zero, 50.0, "upper bound", 8)
    assert not matrix.wrong(zero, 12.5, "sound", 8), "one image of eight is chance"
