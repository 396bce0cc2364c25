"""A part that breaks its promise is one line that names it, before the attack, and leaves no record behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cells import called, run
from odd_parts import Counts

from lgap_bench import CONF
from lgap_bench.build import build
from lgap_bench.cell.compose import composed
from lgap_bench.cell.prepare import prepare
from lgap_bench.dataset.digits import digits
from lgap_bench.evaluation import loop
from lgap_bench.evaluation.contract import check_contracts, check_gradient
from lgap_bench.runtime.device import configure, find_device

CELL = ["n=3", "chunk=3", "score_draws=2", "threads=1"]
Own = Callable[..., list[str]]


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """`own("purifier", "Odd", kind="grey")`: the words that choose a part of tests/odd_parts.py, as a user would."""

    def choose(group: str, code: str, **keys: Any) -> list[str]:
        (tmp_path / "conf" / group).mkdir(parents=True, exist_ok=True)
        content = yaml.safe_dump({"_target_": f"odd_parts.{code}", **keys})
        (tmp_path / "conf" / group / "odd.yaml").write_text(content)
        parts = [] if group == "purifier" else ["purifier=none"]
        return [f"hydra.searchpath=[file://{tmp_path}/conf]", f"outputs={tmp_path}/out", *parts, f"{group}=odd", *CELL]

    return choose


def refusal(tmp_path: Path, words: list[str]) -> str:
    """The one line that a cell is refused with; nothing is left of it."""
    with pytest.raises(ValueError, match=r".") as caught:
        run(words)
    said = str(caught.value)
    assert "\n" not in said, said
    assert not list((tmp_path / "out").glob("records/*")), "an empty record folder is left"
    return said


PURIFIERS = [
    ("torch_generator", ["global random generator", "noise.normal"]),
    ("numpy_generator", ["global random generator"]),
    ("python_generator", ["global random generator"]),
    ("own_seed", ["global random generator"]),
    ("batch_mean", ["differently in another batch"]),
    ("first_row", ["differently in another batch", "place"]),
    ("writes", ["writes into its input", "x.clone()"]),
    ("bytes_range", ["values in [0, 255]", "[0, 1]", "rescale"]),
    ("symmetric_range", ["values in [-1, 1]", "rescale"]),
    ("uint8", ["torch.uint8", "floating point"]),
    ("another_size", ["(3, 3, 16, 16)", "(3, 3, 32, 32)", "same shape"]),
    ("nothing", ["returns NoneType", "a tensor"]),
    ("pair", ["returns tuple", "a tensor"]),
    ("array", ["returns ndarray", "a tensor"]),
    ("grey", ["(3, 1, 32, 32)", "same shape"]),
    ("not_finite", ["not finite"]),
    ("raises", ["KeyError", "lost", "forward(x, noise, observed=None)"]),
    ("raises_value", ["ValueError", "bad value"]),
    ("raises_arithmetic", ["FloatingPointError"]),
    ("raises_file", ["FileNotFoundError", "table.npy"]),
    ("exits", ["ends the process", "exit 3", "raise an error"]),
]


@pytest.mark.parametrize("kind, parts", PURIFIERS, ids=[kind for kind, _ in PURIFIERS])
def test_a_purifier_that_breaks_a_promise_is_refused_whatever_attacks_it(own, tmp_path, kind, parts):
    said = refusal(tmp_path, [*own("purifier", "Odd", kind=kind), "attack=none"])
    for part in ["purifier=odd", *parts]:
        assert part in said, said


@pytest.mark.parametrize(
    "code, keys, parts",
    [
        ("Undeclared", {}, ["randomized = True"]),
        ("Remembers", {}, ["answers differently to the same image", "no state"]),
        ("Trains", {}, ["training mode", "do not call train()"]),
        ("OneArgument", {}, ["TypeError", "forward(x, noise, observed=None)"]),
        ("NoCaptions", {}, ["TypeError", "forward(x, noise, observed=None)"]),
        ("Rows", {}, ["noise has 3 rows"]),
        ("NoSuper", {}, ["super().__init__()"]),
        ("NoSuperModule", {}, ["AttributeError", "Module.__init__()"]),
        ("NoModule", {}, ["NoModule is no Purifier", "derive"]),
        ("Constructor", {"kind": "raises"}, ["its constructor raised RuntimeError (no luck)", "mend its code"]),
        ("Constructor", {"kind": "raises_value"}, ["its constructor raised ValueError (no luck)"]),
        ("Constructor", {"kind": "raises_file"}, ["its constructor raised FileNotFoundError (no luck)"]),
        ("Constructor", {"kind": "exits"}, ["its constructor ends the process (exit 4)", "raise an error"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_class_that_is_no_purifier_yet_is_refused(own, tmp_path, code, keys, parts):
    said = refusal(tmp_path, [*own("purifier", code, **keys), "attack=none"])
    for part in ["purifier=odd", *parts]:
        assert part in said, said


CLASSIFIERS = [
    ("count", ["has 7 classes", "dataset=digits has 10"]),
    ("pair", ["returns tuple", "logits (B, classes)"]),
    ("nothing", ["returns NoneType", "logits (B, classes)"]),
    ("flat", ["returns (30,)", "logits (B, classes)"]),
    ("labels", ["returns (3,)", "logits (B, classes)"]),
    ("integers", ["torch.int64", "floating point"]),
    ("not_finite", ["not finite"]),
    ("random", ["differently to the same image"]),
    ("batch", ["in another batch"]),
    ("raises", ["its forward raised", "forward(x) takes images and returns logits"]),
    ("exits", ["ends the process", "exit 5"]),
]


@pytest.mark.parametrize("kind, parts", CLASSIFIERS, ids=[kind for kind, _ in CLASSIFIERS])
def test_a_classifier_that_breaks_a_promise_is_refused(own, tmp_path, kind, parts):
    said = refusal(tmp_path, [*own("classifier", "OddClassifier", kind=kind), "attack=none"])
    for part in ["classifier=odd", *parts]:
        assert part in said, said


def test_a_classifier_that_turns_training_on_is_refused(own, tmp_path):
    said = refusal(tmp_path, [*own("classifier", "TrainsClassifier", kind="rolled"), "attack=none"])
    assert "classifier.model is in training mode" in said, said


def test_a_classifier_that_writes_into_its_input_is_refused_and_the_digits_stay(own, tmp_path):
    before = digits("test").images[:3].clone()
    said = refusal(tmp_path, [*own("classifier", "OddClassifier", kind="writes"), "attack=none"])
    assert "classifier=odd writes into its input" in said
    assert torch.equal(digits("test").images[:3], before)


@pytest.mark.parametrize("labels", ["float", "list", "bool"])
def test_labels_that_are_no_whole_numbers_are_refused(own, tmp_path, labels):
    about = {"_about_": {"evaluated": 3, "shape": [3, 32, 32]}}
    words = own("dataset", "odd_digits", labels=labels, **about)
    named = ["classifier=digits/standard", "captioner=empty", "prior=digits/latent", "threat=digits/linf"]
    said = refusal(tmp_path, [*words, *named, "attack=none"])
    assert "dataset=odd" in said, said


@pytest.mark.parametrize("kind", ["no_gradient", "gradient_breaks"])
def test_a_gradient_that_is_promised_and_not_there_is_refused_where_it_is_needed(own, tmp_path, kind):
    words = own("purifier", "Odd", kind=kind)
    said = refusal(tmp_path, [*words, "attack=full", "attack.steps=1"])
    for part in ["purifier=odd", "view=bpda"]:
        assert part in said, said
    run([*words, "attack=bpda", "attack.steps=1"])
    run([*words, "attack=square", "attack.n_queries=5"])


@pytest.mark.parametrize("kind", ["gradient_switch", "follows_switch"])
def test_a_purifier_that_answers_otherwise_with_gradients_on_is_refused(own, tmp_path, kind):
    said = refusal(tmp_path, [*own("purifier", "Odd", kind=kind), "attack=full", "attack.steps=1"])
    for part in ["purifier=odd", "logits differ where a gradient is followed", "is_grad_enabled"]:
        assert part in said, said


def test_the_command_says_one_line_and_writes_no_record(own, tmp_path):
    done = called("run", *own("purifier", "Odd", kind="raises_value"), "attack=none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("lgap-bench: purifier=odd: its forward raised ValueError (bad value)")
    assert not list((tmp_path / "out").glob("records/*"))


def asked(words: list[str]) -> None:
    """The contracts of a cell alone."""
    cfg = composed(words)
    cell, device = prepare(cfg, cfg.hydra.runtime.choices), find_device("cpu")
    configure(cell.tf32, cell.threads)
    parts = build(cell, device)
    problem = loop._problem(parts, cell, slice(0, min(cell.chunk, cell.n)), device)
    Counts.rows = 0
    held = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    check_contracts(parts, cell, problem)
    check_gradient(parts, cell, problem)
    assert torch.equal(torch.get_rng_state(), held[0]), "torch's global generator was moved"
    assert np.array_equal(np.random.get_state()[1], held[1])
    assert random.getstate() == held[2]


def test_contracts_cost_less_than_two_purifications_of_a_chunk(own):
    asked([*own("purifier", "Counts"), "n=32", "chunk=32", "attack=full"])
    assert 0 < Counts.rows <= 64, Counts.rows


PURIFIERS_OF_CONF = sorted(path.stem for path in (CONF / "purifier").glob("*.yaml"))


@pytest.mark.parametrize("name", PURIFIERS_OF_CONF)
def test_every_purifier_of_ours_keeps_its_promises(name):
    detects = name.startswith("inpaint") or name == "ciidefence"  # which the digits have no model for
    scale = ["dataset=scenes"] if detects else []
    asked([*scale, f"purifier={name}", "attack=full", "n=3", "chunk=3", "threads=1"])


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("name", ["lgap", "coup"])
def test_rounding_is_no_broken_promise(name, dtype):
    asked([f"purifier={name}", "attack=full", "n=3", "chunk=3", "threads=1", f"dtype={dtype}"])


@pytest.mark.parametrize("n", [1, 2, 8])
def test_any_number_of_images_can_be_asked_about(n):
    asked(["purifier=lgap", "attack=full", f"n={n}", f"chunk={n}", "threads=1"])


def test_the_releases_range_depends_on_the_batch_by_design():
    asked(["purifier=lgap", "purifier.as_released=true", "attack=bpda", "n=3", "chunk=3", "threads=1"])


def test_a_part_without_a_gradient_can_be_measured_unattacked(own):
    assert run([*own("purifier", "Odd", kind="gradient_breaks"), "attack=none"]).complete


def test_permuted_classes_are_said_on_the_screen(own):
    done = called("run", *own("classifier", "OddClassifier", kind="rolled"), "attack=none")
    assert done.returncode == 0, done.stderr
    assert "verdict: invalid" in done.stdout
    assert "its logits fit the labels in another order" in done.stdout
    assert "robust   ?" in done.stdout


def test_probabilities_for_logits_pass(own):
    """They are scored by their order alone; a gradient that they flatten is the verdict's."""
    assert run([*own("classifier", "OddClassifier", kind="probabilities"), "attack=none"]).complete
