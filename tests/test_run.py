"""One cell from the command line: its record, a kill and a resume, a second call, identity."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cells import SMALL, called, identified, lgap_bench, only_record, summary

from lgap_bench.cell.compose import resolved
from lgap_bench.record import Record, records
from lgap_bench.report.rows import grouped, merge
from lgap_bench.runtime.device import CPU

CELL = ["run", "purifier=lgap", "attack=bpda", "n=12", *SMALL[1:], "attack.steps=3"]


@pytest.mark.slow
def test_a_killed_cell_resumes_to_the_identical_record(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert lgap_bench(*CELL, f"outputs={whole}").returncode == 0

    process = subprocess.Popen(
        [sys.executable, "-m", "lgap_bench.cli", *CELL, f"outputs={killed}"], stderr=subprocess.DEVNULL
    )
    while not list(killed.glob("records/*/chunks/00000.npz")):
        assert process.poll() is None, "the cell ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    half = only_record(killed)
    assert not (half / "summary.json").exists(), "the cell was killed too late to show anything"
    first = (half / "chunks" / "00000.npz").stat().st_mtime_ns

    resumed = lgap_bench(*CELL, f"outputs={killed}")
    assert resumed.returncode == 0, resumed.stderr
    assert "4/12" in resumed.stderr  # the first chunk is counted at once
    full = only_record(whole)
    for name in ("samples.parquet", "summary.json", "identity.json", "pictures.npz"):
        assert (half / name).read_bytes() == (full / name).read_bytes(), f"{name} differs after a kill"
    assert first < (half / "summary.json").stat().st_mtime_ns


def test_the_record_holds_what_every_table_needs_and_a_second_call_answers_from_it(tmp_path):
    call = [*CELL, f"outputs={tmp_path}", "keep_images=true", "threat.eps=16/255"]
    first = called(*call)
    assert first.returncode == 0, first.stderr
    folder = only_record(tmp_path)
    record, found = Record(folder), summary(tmp_path)
    samples = record.samples()
    assert {p.name for p in folder.iterdir()} == {
        "config.yaml", "identity.json", "samples.parquet", "summary.json", "run.json", "pictures.npz", "images.npz", "grid.png",
    }  # fmt: skip
    assert len(samples["id"]) == found["n"] == 12
    assert len(set(samples["id"])) == 12
    assert all(len(draws) == 2 for draws in samples["attacked_prediction"])
    assert max(samples["linf"]) <= 16 / 255 + 1e-6
    assert all(isinstance(text, str) and text.startswith("a photo of a") for text in samples["clean_caption"])
    right = np.asarray(samples["attacked_prediction"]) == np.asarray(samples["label"])[:, None]
    assert found["robust"]["mean"] == pytest.approx(100 * right.mean())
    assert found["robust"]["any_of_k"] == pytest.approx(100 * right.all(1).mean())
    with np.load(folder / "images.npz") as images:
        assert images["attacked"].shape == (12, 3, 32, 32)

    stamp = (folder / "run.json").stat().st_mtime_ns
    second = called(*call, "max_rows=64")  # how it is batched is not part of the identity
    assert second.stdout == first.stdout
    assert (folder / "run.json").stat().st_mtime_ns == stamp, "a recorded cell was computed again"


def test_seeds_make_separate_records_that_merge_into_one_row(tmp_path):
    done = called("run", "-m", "purifier=downsample", "attack=pgd", "seed=0,1", *SMALL, f"outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    groups = grouped(records(tmp_path))
    assert [len(group) for group in groups] == [2]
    row = merge(groups[0])
    means = [record.summary()["robust"]["mean"] for record in groups[0]]
    assert row["seeds"] == 2
    assert row["robust"] == pytest.approx(np.mean(means))
    report = called("report", "--outputs", str(tmp_path), "--csv", str(tmp_path / "table.csv"))
    assert "downsample" in report.stdout
    assert (tmp_path / "table.csv").read_text().count("\n") == 2


def test_identity_counts_what_changes_numbers_and_nothing_else(tmp_path):
    def identify(*overrides: str) -> str:
        return identified(overrides)["cell"]

    base = identify()
    for same in (["outputs=elsewhere"], ["threads=1"], ["max_rows=8"], ["keep_images=true"]):
        assert identify(*same) == base, same
    for other in (["seed=1"], ["n=32"], ["chunk=16"], ["threat.eps=8/255"], ["purifier.strength=0.3"], ["captioner=empty"],
                  ["view=full"], ["classifier=digits/adversarial"], ["score_draws=5"], ["dtype=float64"]):  # fmt: skip
        assert identify(*other) != base, other
    # A captioner that the purifier does not use is neither loaded nor part of the identity.
    assert identify("purifier=downsample", "captioner=empty") == identify("purifier=downsample")


def test_a_failing_gradient_is_a_recorded_state_and_never_robust(tmp_path):
    import torch

    from lgap_bench.attack.problem import Parts
    from lgap_bench.evaluation.loop import evaluate
    from lgap_bench.evaluation.summary import summarise

    class Explodes:
        def __call__(self, problem):
            if 2 in problem.ids:
                raise FloatingPointError("gradient of sample 2 is not finite")
            return problem.x

    from lgap_bench.attack.threat import Threat
    from lgap_bench.attack.view import Full
    from lgap_bench.dataset.base import DataSet
    from lgap_bench.defense import Defense
    from lgap_bench.purifier.base import Purifier

    class Mean(torch.nn.Module):
        def forward(self, x):
            m = x.mean((1, 2, 3))
            return torch.stack([m, 1 - m], 1)

    data = DataSet("toy", "test", torch.ones(4, 3, 2, 2), torch.zeros(4).long(), torch.arange(4), ("a", "b"), "{label}")
    defense = Defense(Purifier(), Mean())
    cell = resolved(["purifier=none", "attack=pgd", "n=4", "chunk=4", "score_draws=1", "max_rows=8"])
    record = Record(tmp_path)
    record.begin(cell.plain(), {})
    parts = Parts(data, defense, Explodes(), Full(defense), Threat("linf", 0.1))
    result = summarise(list(evaluate(parts, cell, record, CPU).values()), data.task)
    assert result["failed"] == 1
    assert result["status"] == "partial"
    assert result["robust"]["mean"] == 100.0
    json.dumps(result)


def test_models_in_bfloat16_leave_the_images_on_the_balls_edge(tmp_path):
    done = called(
        "run",
        "attack=full",
        "dtype=bfloat16",
        "threat.eps=8/255",
        *SMALL,
        "attack.step_size=eps",
        f"outputs={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    assert max(Record(only_record(tmp_path)).samples()["linf"]) == pytest.approx(8 / 255, abs=1e-6)
