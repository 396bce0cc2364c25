"""COUP's figures from images: what is written adds up, and everything compared meets the same images and draws."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lgap_bench.cell.compose import resolved
from scripts.coup import case, comparison, distance, grids
from scripts.coup.comparison import Attacked

TINY = ["n=4", "score_draws=3", "purifier.sampler.dt=0.1"]  # two steps instead of four
SCRIPTS: dict[str, ModuleType] = {"case": case, "distance": distance, "grids": grids}


def table(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def run(outputs: Path) -> Callable[..., Path]:
    """`run(name)`: a script on four images; the attacked cells are shared, so only the first one attacks."""

    def call(name: str, *more: str) -> Path:
        module = SCRIPTS[name]
        module.main(["--quick", "--out", str(outputs / "figures"), *TINY, f"outputs={outputs}", *more])
        return outputs / "figures"

    return call


@pytest.mark.slow
def test_the_counts_of_figure_6_add_up_and_are_those_of_its_samples(run: Callable[..., Path]) -> None:
    folder = run("grids")
    counts, samples = table(folder / "coup_6.csv"), table(folder / "coup_6_samples.csv")
    pairs = [("unguided", "coup"), ("coup", "coup"), ("unguided", "strong"), ("strong", "strong")]
    assert [(row["attacked"], row["guided"]) for row in counts] == pairs
    for row in counts:
        own = [each for each in samples if each["attacked"] == row["attacked"]]
        assert len(own) == int(row["n"]) == 4
        cases = [int(row[kind]) for kind in ("rescued", "lost", "both_right", "both_wrong")]
        assert sum(cases) == 4
        named = [each[f"case_{row['guided']}"] for each in own]
        assert cases == [named.count(kind) for kind in ("rescued", "lost", "both_right", "both_wrong")]
        for each, found in zip(own, named, strict=True):  # right is right in more than half of three draws
            right = int(each["wrong_unguided"]) <= 1, int(each[f"wrong_{row['guided']}"]) <= 1
            called = {(False, True): "rescued", (True, False): "lost", (True, True): "both_right"}
            assert found == called.get(right, "both_wrong")
    assert all((folder / name).stat().st_size > 10_000 for name in ("coup_5.png", "coup_6.png"))


@pytest.mark.slow
def test_the_attacked_purifier_is_scored_as_its_record_says(outputs: Path, run: Callable[..., Path]) -> None:
    run("grids")
    overrides = comparison.arguments("x", ["--quick", *TINY, f"outputs={outputs}"]).overrides
    images = comparison.attacked(overrides, "unguided")
    again = comparison.predictions(comparison.defense(overrides, "unguided"), images, 3)
    assert torch.equal(again != images.labels, images.wrong), "other images or other draws than the record's"
    assert not torch.equal(images.clean, images.images)


@pytest.mark.slow
def test_the_case_study_starts_both_purifiers_from_one_image_and_counts_what_it_shows(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "majority_wrong", lambda wrong: torch.tensor([True, False, True, True]))
    rows = table(run("case") / "coup_2a.csv")
    assert {row["purifier"] for row in rows} == {"unguided", "coup", "strong"}
    for dt in {row["dt"] for row in rows}:
        starts = [row for row in rows if row["dt"] == dt and row["step"] == "0"]
        assert len(starts) == 3
        for key in ("label", "label_low", "label_high", "largest", "right"):
            assert len({row[key] for row in starts}) == 1
    assert {row["samples"] for row in rows} == {"3"}
    assert sum(row["end"] == "1" for row in rows) == 6, "one end per purifier and step length"
    for row in rows:
        assert 0 <= float(row["label_low"]) <= float(row["label_high"]) <= 1
        assert float(row["label"]) <= float(row["largest"]) + 1e-9
        assert 0 <= int(row["right"]) <= 3


@pytest.mark.slow
def test_guidance_of_weight_zero_changes_no_curve(outputs: Path, run: Callable[..., Path]) -> None:
    run("grids")
    overrides = comparison.arguments("x", ["--quick", *TINY, f"outputs={outputs}"]).overrides
    images = comparison.attacked(overrides, "unguided")
    silent = [*overrides, "purifier.sampler.noise=false"]
    plain = case.followed(comparison.defense(silent, "unguided"), images, [0, 2])
    weightless = [*silent, "purifier.guidance.weight=0"]  # the unguided cell has no such key and is left alone
    assert "purifier.guidance.weight=0" not in comparison.VARIANTS["unguided"].cell(weightless)
    assert case.followed(comparison.defense(weightless, "coup"), images, [0, 2]) == plain
    assert case.followed(comparison.defense(silent, "coup"), images, [0, 2]) != plain


@pytest.mark.slow
def test_the_distances_stay_below_their_bound_and_the_bound_grows_with_depth(run: Callable[..., Path]) -> None:
    rows = table(run("distance") / "coup_distance.csv")
    arms = {(row["forward"], row["weight"]) for row in rows}
    assert arms == {(forward, weight) for forward in "01" for weight in ("0.0", "1.0", "100.0")}
    for row in rows:
        assert int(row["runs"]) == 4, "the other four gave the constants"
        assert int(row["above_strict"]) == 0
        assert (float(row["max_guidance"]) > 0) == (float(row["weight"]) > 0)
    for arm in arms:
        line = [row for row in rows if (row["forward"], row["weight"]) == arm]
        assert [float(row["t_star"]) for row in line] == sorted(float(row["t_star"]) for row in line)
        assert float(line[-1]["strict"]) > float(line[0]["strict"])
    assert sum(int(row["above_constants"]) for row in rows) > 0, (
        "constants of the runs that are tried are never exceeded"
    )


@pytest.mark.parametrize("name", ["case", "grids", "distance"])
def test_every_script_composes_at_paper_scale(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    SCRIPTS[name].main(["--paper", "--dry"])
    said = capsys.readouterr().out
    assert "on cifar10, apgd_ce (view full), linf 8/255, n = 512" in said
    assert said.count("dry check passed") >= 2


@pytest.mark.parametrize(
    "given, words",
    [
        ("n=1", "n=1: every other image"),
        ("purifier/sampler=ddim", "proposition 2 is of the reverse SDE"),
        ("purifier/sampler=ode", "proposition 2 is of the reverse SDE"),
        ("purifier.sampler.noise=false", "proposition 2 is of the reverse SDE"),
        ("purifier/guidance=distance", "proposition 2 is of COUP's"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry"]])
def test_what_the_bound_does_not_speak_of_is_refused_before_anything_is_attacked(
    given: str, words: str, dry: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "attacked", lambda *_: pytest.fail("attacked"))
    with pytest.raises(ValueError, match=words):
        distance.main(["--quick", given, *dry])


@pytest.mark.slow
def test_no_sample_to_study_is_said_in_one_line(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "majority_wrong", lambda wrong: torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="no sample of 4 is wrong without guidance"):
        run("case")


@pytest.mark.parametrize("draws", [1, 3, 8])
def test_a_tie_counts_as_wrong(draws: int) -> None:
    wrong = torch.zeros(draws, 2, dtype=torch.bool)
    wrong[: (draws + 1) // 2, 0] = True
    assert comparison.majority_wrong(wrong).tolist() == [True, False]


def test_some_samples_keep_their_own_draws() -> None:
    images = Attacked(resolved(["seed=0"]), *(torch.zeros(3, 1),) * 2, torch.zeros(3), (7, 8, 9), torch.zeros(1, 3), [])
    assert images.score(2, [2]).keys == tuple(images.score(2).keys[i] for i in (2, 5))


def test_the_sign_test() -> None:
    p = grids.sign_test
    assert p(0, 0) == 1
    assert p(5, 5) == 1
    assert p(0, 5) == pytest.approx(2 / 32)
