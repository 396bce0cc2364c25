"""A real network's robust accuracy equals what other code found, sample by sample; the whole table: scripts/known_answers.py."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from lgap_bench.cell.compose import resolved
from scripts.known_answers import ANSWERS, Answer, Comparison, answers, compare

DATA = Path(os.environ.get("LGAP_BENCH_TEST_DATA", "nowhere"))
real = pytest.mark.skipif(
    not (DATA / ANSWERS).is_file(), reason="needs the folder of images and answers that LGAP_BENCH_TEST_DATA names"
)
FEW = {"clean": 64, "pgd20": 16, "apgd_ce": 4}  # images; all of them take twenty minutes


@real
@pytest.mark.parametrize("name, eps", [("clean", None), ("pgd20", "0.5"), ("pgd20", "1"), ("pgd20", "8"), ("apgd_ce", "1")])  # fmt: skip
def test_a_real_network_is_as_robust_as_other_code_found_it(tmp_path, name, eps):
    (answer,) = [each for each in answers(DATA) if (each.experiment, each.eps) == (name, eps)]
    found = compare(answer, DATA, tmp_path, FEW[name])
    assert found.n == FEW[name]
    assert found.differ == (), found.line()
    assert found.measured == found.known


BROKEN = {"robust": [0, 0], "log": ["robust accuracy after APGD-CE: 0.00% (total time 1.0 s)"]}
LEFT = {
    "robust": [0, 0],
    "log": ["robust accuracy after APGD-CE: 50.00% (total time 1.0 s)"],
}  # another attack's answer


@pytest.fixture
def folder(tmp_path):
    """Four grey images with made-up answers, in the files' form."""
    (tmp_path / "known_answers").mkdir()
    (tmp_path / "cifar10_lossless").mkdir()
    np.savez(tmp_path / "cifar10_lossless" / "test.npz", images=np.full((4, 32, 32, 3), 128, np.uint8),
             labels=np.arange(4), index=np.arange(4))  # fmt: skip
    (tmp_path / "cifar10_lossless" / "test_labels_all_10000.json").write_text("[0, 1, 2, 3]")
    held = {
        "clean": {"lossless4": {"pred": [0, 1, 2, 9]}},
        "pgd20": {"results": {"lossless2|1": {"robust": [1, 0]}}},
        "autoattack": {"results": {"lossless2|apgdce|1": {"robust": [0, 1]}, "lossless2|standard|8": BROKEN, "lossless2|apgdcet|1": LEFT}},
    }  # fmt: skip
    (tmp_path / ANSWERS).write_text(json.dumps(held))
    return tmp_path


def test_the_answers_file_is_read_and_what_is_not_measured_here_is_left_out(folder):
    assert answers(folder) == [
        Answer("clean", None, (True, True, True, False)),
        Answer("pgd20", "1", (True, False)),
        Answer("apgd_ce", "1", (False, True)),
        Answer("apgd_ce", "8", (False, False)),
    ]


def test_a_sample_that_differs_is_named(folder, tmp_path):
    (clean, *_) = answers(folder)
    found = compare(clean, folder, tmp_path / "out")
    assert found.n == 4
    # One grey picture has one answer, so at most one of four different labels is right: the made-up answers are not met.
    assert found.measured <= 25
    assert len(found.differ) >= 2
    assert str(found.differ[0]) in found.line()
    whole = Comparison(clean, 4, 75.0, 75.0, ())
    assert whole.line() == "| clean | – | 4 | 75.00 % | 75.00 % | none |"


def test_the_experiments_attack_as_the_answers_were_made():
    attack = resolved(["experiment=known_answer/pgd20", "threat.eps=1/255"]).attack
    assert (attack["steps"], attack["step_size"], attack["start"], attack["keep"]) == (20, "eps/8", "zero", "last")
    attack = resolved(["experiment=known_answer/apgd_ce"]).attack
    assert (attack["loss"], attack["n_iter"]) == ("cross_entropy", 100)
