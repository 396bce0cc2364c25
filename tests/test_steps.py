"""What is told while a cell runs: steps of attacks, scoring, checks and training; and that a started cell is never silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cells import run
from toys import SIDE, Jitter, Linear

from lgap_bench.attack.autoattack import APGD, AutoAttack
from lgap_bench.attack.carlini_wagner import CarliniWagner
from lgap_bench.attack.deepfool import DeepFool
from lgap_bench.attack.ensemble import Ensemble
from lgap_bench.attack.pgd import PGD
from lgap_bench.attack.threat import Threat
from lgap_bench.attack.torchattack import CW, EOTPGD, Square
from lgap_bench.build import LARGE, build
from lgap_bench.cell.compose import composed
from lgap_bench.cell.prepare import prepare
from lgap_bench.logger.base import Logger, Loggers
from lgap_bench.purifier.base import Purifier
from lgap_bench.runtime import weights as weight_files
from lgap_bench.runtime.device import CPU

Told = list[tuple[str, int, int | None]]
L2 = Threat("l2", 0.8)
WEAK = PGD(2, "eps/2", draws=2)


class Heard(Logger):
    """Writes down phases and steps."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.steps: Told = []

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def step(self, name: str, k: int, n: int | None) -> None:
        self.steps.append((name, k, n))


def told(attack: Any, images: Any, make_problem: Any, **given: Any) -> Told:
    problem = make_problem(Linear(10).requires_grad_(False), images(3, SIDE), **given)
    heard: Told = []
    attack(replace(problem, tell=lambda *step: heard.append(step)))
    return heard


def test_pgd_counts_its_steps_over_all_restarts(images, make_problem):
    attack = PGD(3, "eps/2", restarts=2, draws=2, confirm_draws=0)
    found = told(attack, images, make_problem, purifier=Jitter())
    assert found == [("step", k, 6) for k in (1, 2, 3, 4, 5, 6)]


@pytest.mark.parametrize(
    "attack, given, last",
    [
        (CarliniWagner(search=2, steps=3, draws=2), {"threat": L2}, ("call", 6, 6)),
        (CW(steps=4), {"threat": L2}, ("call", 4, 4)),
        (EOTPGD(3, draws=2), {}, ("call", 6, 6)),
        (DeepFool(2, draws=2), {"threat": L2}, None),
        (Square(5, draws=2), {}, None),
        (APGD(n_iter=3, draws=2), {}, None),
    ],
    ids=lambda value: type(value).__name__ if callable(value) else "",
)
def test_an_attack_that_goes_through_a_library_counts_its_calls(attack, given, last, images, make_problem):
    found = told(attack, images, make_problem, purifier=Jitter(), **given)
    calls = [step for step in found if step[0].endswith("call")]
    counts = [k for _, k, _ in calls]
    assert len(calls) > 2
    assert counts == sorted(counts)
    assert last is None or calls[-1] == last


@pytest.mark.parametrize("purifier", [Purifier, Jitter])
def test_autoattack_tells_its_calls(purifier, images, make_problem):
    attack = AutoAttack("rand", 2, n_iter=3, select_draws=2, confirm_draws=0)
    found = told(attack, images, make_problem, purifier=purifier(), threat=Threat("linf", 0.004))
    names = {name for name, _, _ in found}
    assert names == (
        {"member apgd-ce", "apgd-ce: call", "member apgd-dlr", "apgd-dlr: call"} if purifier is Jitter else {"call"}
    )


def test_an_ensemble_says_which_member_a_step_belongs_to(images, make_problem):
    found = told(Ensemble({"a": WEAK, "b": WEAK}, confirm_draws=0), images, make_problem, purifier=Jitter())
    assert found == [
        ("member a", 1, 2), ("a: step", 1, 2), ("a: step", 2, 2),
        ("member b", 2, 2), ("b: step", 1, 2), ("b: step", 2, 2),
    ]  # fmt: skip


def test_a_cell_tells_its_checks_its_steps_and_its_scoring_in_their_order(tmp_path):
    heard = Heard()
    words = [
        "purifier=downsample",
        "attack=full",
        "attack.steps=3",
        "n=4",
        "chunk=2",
        "threads=1",
        f"outputs={tmp_path}",
    ]
    run(words, loggers=Loggers([heard]))
    names = list(dict.fromkeys(name for name, _, _ in heard.steps))
    assert names == ["check", "step", "scoring"]
    assert [k for name, k, _ in heard.steps if name == "check"] == [1, 2, 3, 4, 5, 6]
    assert [k for name, k, _ in heard.steps if name == "scoring"] == [1, 2, 3, 4, 5] * 2
    assert heard.phases == [], "a miniature loads in no time"


def test_training_tells_each_step_and_each_purified_image(tmp_path):
    heard = Heard()
    recipe = [
        "finetune=lgap",
        "finetune.n=6",
        "finetune.epochs=2",
        "finetune.batch_size=3",
        "finetune.batch=4",
        "max_rows=2",
    ]
    words = ["purifier=downsample", "attack=none", "n=2", "threads=1", f"outputs={tmp_path}", *recipe]
    run(words, loggers=Loggers([heard]))
    images = [(k, n) for name, k, n in heard.steps if name == "image" and n == 6]
    assert images == [(2, 6), (4, 6), (6, 6)]
    steps = [(k, n) for name, k, n in heard.steps if name == "step"]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_large_models_are_announced_before_they_are_loaded(tmp_path, monkeypatch):
    cfg = composed(["purifier=lgap", f"outputs={tmp_path}"])
    cell, heard = prepare(cfg, cfg.hydra.runtime.choices), Heard()
    build(cell, CPU, Loggers([heard]))
    assert heard.phases == []
    monkeypatch.setattr("lgap_bench.build.LARGE", 1000)
    build(cell, CPU, Loggers([heard]))
    assert heard.phases == ["lgap under bpda: loading 0.0 GiB of models"]
    embedded = sum(weight_files.size(f"embedded:digits/{name}") for name in ("latent", "blip", "standard"))
    assert 1000 < embedded < LARGE
    assert weight_files.size(str(tmp_path / "nowhere")) == 0
    file = Path(tmp_path / "some.pt")
    file.write_bytes(b"12345")
    assert weight_files.size(str(file)) == 5
