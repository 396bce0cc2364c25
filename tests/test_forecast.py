"""The forecast: what is counted beforehand is what cells do, with and without models, and rates are read or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lgap_bench.attack.journal import KEEPS_NOTHING
from lgap_bench.cell.about import about
from lgap_bench.cell.compose import composed, resolved
from lgap_bench.cell.config import Cell
from lgap_bench.cell.prepare import prepare
from lgap_bench.evaluation.loop import one_chunk
from lgap_bench.forecast import hollow
from lgap_bench.forecast.asked import kinds_of, networks_per_image
from lgap_bench.forecast.cost import Forecast, forecast, read, unnamed
from lgap_bench.forecast.count import work
from lgap_bench.forecast.held import most_held
from lgap_bench.forecast.networks import watched
from lgap_bench.forecast.parts import untrained
from lgap_bench.forecast.rates import measured
from lgap_bench.forecast.tables import precision_of, speed
from lgap_bench.logger.base import SILENT
from lgap_bench.measure import run_cell
from lgap_bench.runtime.device import CPU
from lgap_bench.sweep.plan import plans
from lgap_bench.sweep.planned import duration, page

FEW = ["n=8", "chunk=4", "score_draws=2", "threads=1"]
STAYS = ["attack.confirm_draws=0", "attack.select_draws=2"]  # no image leaves early


def cell_of(tmp_path: Path, *words: str) -> Cell:
    cfg = composed([*FEW, *words, f"outputs={tmp_path}"])
    return prepare(cfg, cfg.hydra.runtime.choices)


COUNTED = {
    "lgap, BPDA": ["purifier=lgap", "attack=bpda", "attack.steps=2", *STAYS],
    "lgap, full": ["purifier=lgap", "attack=full", "attack.steps=2", "attack.draws=2", *STAYS],
    "lgap, captioner attacked": ["purifier=lgap", "attack=full_joint", "attack.steps=2", "attack.draws=2", *STAYS],
    "lgap, blind": ["purifier=lgap", "attack=pgd", "attack.steps=2", "attack.keep=last"],
    "coup, full": ["purifier=coup", "attack=full", "attack.steps=2", "attack.draws=2", *STAYS],
    "coup, guidance hidden": ["purifier=coup", "attack=full", "view=detached", "attack.steps=2", "attack.draws=2", *STAYS],
    "diffpure, fewer steps": ["purifier=diffpure", "attack=full", "view=surrogate", "attack.steps=2", "attack.draws=2", *STAYS],
    "likelihood, BPDA": ["purifier=likelihood_max", "attack=bpda", "attack.steps=1", "attack.keep=last", *STAYS],
    "several restarts": ["purifier=diffpure", "attack=bpda", "attack.steps=2", "attack.restarts=2", *STAYS],
    "inpaint, full": ["dataset=scenes", "purifier=inpaint", "attack=full", "attack.steps=1", "attack.draws=1", "attack.keep=last", *STAYS],
    "nothing attacked": ["purifier=diffpure", "attack=none"],
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_networks_are_called_as_often_as_was_counted(name: str, tmp_path: Path) -> None:
    """Every network of a real cell is watched while it works; the count was made on stand-ins that call none of them."""
    cell = cell_of(tmp_path, *COUNTED[name])
    parts = untrained(cell, CPU)
    whole = work(parts, cell)
    rates = measured(parts, cell, dict.fromkeys(whole, 2), CPU)
    told = networks_per_image(whole, {kind: rate.networks for kind, rate in rates.items()}, cell)
    with watched(torch.nn.ModuleDict({"defense": parts.defense})) as called:
        for first in (0, 4):
            with parts.defense.purifier.remembering():
                one_chunk(parts, cell, slice(first, first + 4), CPU, KEEPS_NOTHING, SILENT)
    done = called.by_network(cell.n)
    # Texts are encoded once per distinct one of a pass, captions end when they end, and images that were met before are
    # not described again: these hang on what the images show.
    free = ("prior.text_encoder", "captioner.text_decoder", "captioner.vision_model", "detector")
    assert done.keys() <= told.keys() | {each for each in done if each.startswith(free)}
    for network, calls in done.items():
        if not network.startswith(free):
            assert told[network] == pytest.approx(calls, rel=0.1), f"{network}: {told[network]} told, {calls} called"


ENDING = {
    "autoattack_standard": [],
    "square": ["attack.n_queries=20"],
    "cw": ["threat=l2", "threat.eps=2", "attack.steps=20"],
    "deepfool": ["threat=l2", "threat.eps=2"],
}


@pytest.mark.parametrize("attack", ENDING)
def test_attacks_that_end_when_they_win_ask_at_most_what_was_counted(attack: str, tmp_path: Path) -> None:
    cell = cell_of(tmp_path, "purifier=none", f"attack={attack}", "n=4", *ENDING[attack])
    parts = untrained(cell, CPU)
    whole = work(parts, cell)
    with watched(torch.nn.ModuleDict({"defense": parts.defense})) as called:
        one_chunk(parts, cell, slice(0, 4), CPU, KEEPS_NOTHING, SILENT)
    told = sum(rows for (part, _), (_, rows) in whole.items() if part == "classify")
    assert 0 < sum(called.rows.values()) <= 1.05 * told


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_pass_holds_as_much_memory_as_its_tensors(size: int) -> None:
    weight = torch.ones(4, 4)
    x = torch.ones(size, 4, requires_grad=True)

    def run() -> torch.Tensor:
        return (x @ weight).exp().sum()

    # exp saves its result, of x's shape; the weight is left out, and x itself is held by nobody.
    assert most_held(run, [weight]) == 4 * 4 * size


def test_what_is_let_go_and_held_again_counts_once() -> None:
    def run() -> None:
        for _ in range(3):
            x = torch.ones(8, requires_grad=True)
            torch.autograd.grad(x.exp().sum(), x)

    assert most_held(run) == 4 * 8


def test_a_forecast_is_kept_in_the_record_that_it_was_made_of(tmp_path: Path) -> None:
    words = [*FEW, "purifier=downsample", "attack=bpda", "attack.steps=2", f"outputs={tmp_path}"]
    ran = subprocess.run([sys.executable, "-m", "lgap_bench.cli", "plan", *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "measured here" in ran.stdout
    assert "all that is left" in ran.stdout
    cfg = composed(words)
    record = run_cell(cfg, cfg.hydra.runtime.choices)
    told = record.run()["forecast"]
    assert told["id"] == record.folder.name
    assert told["seconds"] > 0
    assert told["images"] == 8
    assert read(told).networks["classifier"] > 0
    again = subprocess.run([sys.executable, "-m", "lgap_bench.cli", "plan", *words], capture_output=True, text=True)
    assert "its record" in again.stdout
    assert "recorded" in again.stdout
    dry = subprocess.run(
        [sys.executable, "-m", "lgap_bench.cli", "run", "-m", *words, "dry=true"], capture_output=True, text=True
    )
    assert "what is left takes 0 s" in dry.stderr
    assert "1 recorded" in dry.stderr


def test_rates_are_measured_once_for_all_cells_of_a_defense(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, "purifier=downsample", "attack=bpda", "attack.steps=2")
    first = forecast(cell, CPU)
    files = sorted((tmp_path / "rates").iterdir())
    stamps = [file.stat().st_mtime_ns for file in files]
    assert forecast(cell, CPU).seconds == first.seconds
    assert [file.stat().st_mtime_ns for file in files] == stamps
    assert len(files) == 2


def test_two_rows_of_one_record_are_looked_at_and_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = [*FEW, f"outputs={tmp_path}"]
    every = [["experiment=demo/undefended", *more], ["purifier=none", "attack=pgd", *more]]
    first, second = plans(every)
    assert isinstance(first, Forecast)
    assert isinstance(second, Forecast)
    assert (first.id, first.seconds) == (second.id, second.seconds)
    *rows, total = page([first, second], "both").tables[0].rows
    assert [row["there"] for row in rows] == [None, "with demo/undefended"]
    assert (total["images"], total["time"]) == (first.images, rows[0]["time"])
    monkeypatch.setattr("lgap_bench.sweep.plan.forecast", None)  # neither looks again
    assert list(plans(every)) == [first, second]
    monkeypatch.undo()
    (tmp_path / "forecasts" / f"{first.id}.json").write_text('{"of": "an earlier version"}')
    (anew, *_) = plans(every)
    assert isinstance(anew, Forecast)
    assert (anew.id, anew.seconds) == (first.id, first.seconds), "made anew, from rates that are kept"
    for name in ("coup/table1/coup_apgd", "coup/figure2b/coup_wrn_28_10"):  # of models that are not here
        assert unnamed(paper(f"experiment={name}")).same == unnamed(paper("experiment=coup/table1/coup_apgd")).same


def test_more_images_cost_in_proportion_and_512_are_told_beside(tmp_path: Path) -> None:
    small = forecast(cell_of(tmp_path, "purifier=downsample", "attack=bpda", "n=512", "chunk=32"), CPU)
    large = forecast(cell_of(tmp_path, "purifier=downsample", "attack=bpda", "n=1000", "chunk=32"), CPU)
    assert small.few_seconds is None
    assert large.few_seconds == pytest.approx(small.seconds, rel=0.05)
    assert large.seconds == pytest.approx(small.seconds * 1000 / 512, rel=0.1)


def test_what_is_trained_first_is_told_once_for_all_cells(tmp_path: Path) -> None:
    words = ["experiment=lgap/table1/lgap", "dataset=digits"]
    found = [forecast(cell_of(tmp_path, *words, f"seed={seed}"), CPU) for seed in (0, 1)]
    told = page(found, "two seeds").tables[-1]
    assert [row["images"] for row in told.rows] == [3500]
    assert told.rows[0]["time"]


def paper(*words: str) -> Cell:
    return resolved([*words, "checkpoints=nowhere"])


def test_stable_diffusion_costs_without_its_weights_what_is_known_of_it() -> None:
    cell = paper("experiment=lgap/table1/lgap")
    parts = hollow.hollow(cell)
    assert sum(each.numel() for each in parts.defense.purifier.prior.unet.parameters()) == 859_520_964
    size = tuple(about(cell.dataset, "shape"))
    one, four = (hollow.cost(parts, ("purify", False), size, rows) for rows in (1, 4))
    steps = len(parts.defense.purifier.steps)
    assert one.networks["prior.unet"] == 2 * steps  # with and without the caption
    # 803 GFLOP at 64 x 64 (402 G multiply-adds, as published profiles say); at 48 x 48 attention takes less than in proportion.
    each = one.gflop["UNet2DConditionModel"] / (2 * steps)
    assert 0.8 * 803 * (48 / 64) ** 2 < each < 803 * (48 / 64) ** 2
    assert four.gflop["UNet2DConditionModel"] == pytest.approx(one.gflop["UNet2DConditionModel"])


@pytest.mark.parametrize(
    "name",
    ["coup/beyond/coup_linf_adjoint_release", "coup/cifar100/likelihood_max_guided", "conditioned_denoising/ablation/rt_detr"],
)  # fmt: skip
def test_papers_are_forecast_where_nothing_of_them_is_here(name: str) -> None:
    """Detectors, inpainting, guidance and views of their own are built without numbers, and their attacks counted."""
    cell = paper(f"experiment={name}")
    parts = hollow.hollow(cell)
    assert sum(rows for _, rows in work(parts, cell).values()) > cell.n
    if name.startswith("conditioned"):  # whose pass is the shortest
        found = hollow.cost(parts, ("purify", False), tuple(about(cell.dataset, "shape")), 1)
        assert found.networks
        assert all(found.gflop[kind] > 0 for kind in found.gflop)


def test_a_gradient_costs_operations_and_memory_beyond_its_pass() -> None:
    cell = paper("experiment=lgap/table1/raw")
    parts = hollow.hollow(cell)
    size = tuple(about(cell.dataset, "shape"))
    there, back = (hollow.cost(parts, ("classify", way), size, 2) for way in (False, True))
    assert back.gflop["WideResNet"] == pytest.approx(2 * there.gflop["WideResNet"], rel=0.01)
    assert there.mib == 0 < back.mib
    assert set(kinds_of(work(parts, cell), cell).values()) <= set(range(1, cell.max_rows + 1))


def test_precisions_are_called_as_the_tables_call_them() -> None:
    assert precision_of("float32", False, False) == "float32"
    assert precision_of("float32", True, False) == "tf32"
    assert precision_of("float16", False, True) == "float16_compiled"


def test_a_table_gives_seconds_by_class_and_the_median_to_others(tmp_path: Path) -> None:
    rows = [
        {"network": name, "class": name, "precision": "float32", "rows": many, "forward": {"seconds": s, "gflop": 100.0}}
        for name, many, s in (("A", 1, 9.0), ("A", 8, 1.0), ("B", 8, 2.0), ("C", 8, 4.0))
    ]  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps({"machine": "x", "rows": rows}))
    found = speed(str(tmp_path / "mine.json"), "float32")
    assert found.name == "mine"
    assert found.seconds({"A": 200.0}, False) == 2.0  # at 8 rows, not at 1
    assert found.seconds({"unknown": 200.0, "B": 50.0}, False) == 5.0
    with pytest.raises(ValueError, match="has no bfloat16, only float32"):
        speed(str(tmp_path / "mine.json"), "bfloat16")


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"rows": 3}', '{"rows": [{"precision": "float32"}]}'])
def test_a_damaged_table_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match="rates=") as refused:
        speed(str(tmp_path / "bad.json"), "float32")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rates=nowhere"], "rates=nowhere is no table"),
        (["rates=tflops:-3"], "tflops:40"),
        (["rates=tflops:many"], "tflops:40"),
        (["format=pdf"], "format=pdf is not known"),
        (["slow=perhaps"], "neither true nor false"),
        (["lgap/9"], "lgap/9 is no paper and no table"),
        (["attack=unknown"], "unknown"),
    ],
)
def test_bad_words_of_plan_are_one_line(words: list[str], told: str, tmp_path: Path) -> None:
    given = (
        []
        if any("/" in word and "=" not in word for word in words)
        else ["experiment=lgap/table1/raw", "dataset=digits"]
    )
    ran = subprocess.run(
        [sys.executable, "-m", "lgap_bench.cli", "plan", *given, *words, f"outputs={tmp_path}"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode != 0
    assert told in ran.stderr + ran.stdout
    assert "Traceback" not in ran.stderr


def test_durations_are_read_at_a_glance() -> None:
    assert [duration(each) for each in (0.5, 90, 600, 36_000, 3.6e6, None)] == [
        "0.5 s", "90 s", "10 min", "10 h", "1,000 h", None,
    ]  # fmt: skip
