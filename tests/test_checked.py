"""Contracts are asked once per part and code: whether they were asked before changes no record, and no failure is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cells import only_record, run

from lgap_bench.cell.compose import resolved
from lgap_bench.cell.identity import contract_identity
from lgap_bench.logger.base import Logger, Loggers
from lgap_bench.runtime.files import content_id

CELL = ["purifier=downsample", "attack=pgd", "attack.steps=2", "n=4", "chunk=2", "score_draws=2", "threads=1"]
PARTS, VIEW = [1, 2, 3, 4, 5], [6]
ALL = PARTS + VIEW


class Heard(Logger):
    """Writes down which checks it is told of."""

    def __init__(self) -> None:
        self.checks: list[int] = []
        self.before: list[int] = []

    def step(self, name: str, k: int, n: int | None) -> None:
        if name == "check":
            self.checks.append(k)
        if name == "checked before":
            self.before.append(k)


def checks(outputs: Path, *more: str) -> list[int]:
    """Which checks ran; that the others ran before is told."""
    heard = Heard()
    run([*CELL, f"outputs={outputs}", *more], loggers=Loggers([heard]))
    ran = [PARTS[0] in heard.checks, VIEW[0] in heard.checks]
    assert heard.before == [k for k, yes in zip((1, 2), ran, strict=True) if not yes]
    return heard.checks


def test_the_same_parts_are_asked_once_whatever_attacks_them(tmp_path):
    assert checks(tmp_path) == ALL
    assert len(list((tmp_path / "contracts").glob("*.json"))) == 2
    for more in (
        ["attack.steps=3"],
        ["score_draws=3"],
        ["seed=1"],
        ["n=6"],
        ["threat.eps=16/255"],
        ["max_rows=3", "score_draws=4"],
        ["save_every=1", "score_draws=5"],
    ):
        assert checks(tmp_path, *more) == [], more


@pytest.mark.parametrize(
    "more, asked",
    [
        (["purifier=none"], ALL),
        (["classifier=digits/adversarial"], ALL),
        (["dtype=float64"], ALL),
        (["chunk=1"], ALL),
        (["attack=bpda"], VIEW),
    ],
)
def test_other_parts_are_asked_for_themselves(more, asked, tmp_path):
    checks(tmp_path)
    assert checks(tmp_path, *more) == asked
    assert checks(tmp_path, *more, "score_draws=3") == []


def ids(*words: str) -> str:
    return content_id(contract_identity(resolved([*CELL, *words]), 3, "cpu", True))


def test_edited_code_and_another_device_are_asked_again(monkeypatch):
    plain = ids()
    assert ids("attack.steps=4") == plain
    cell = resolved(CELL)
    assert content_id(contract_identity(cell, 3, "GPU", True)) != plain
    for name, value in (
        ("changed", lambda targets: {"lgap_bench.purifier.base": "other"}),
        ("release", lambda: "next"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"lgap_bench.cell.identity.{name}", value)
            assert ids() != plain, name


@pytest.mark.parametrize("attack", ["full", "autoattack_rand"])
def test_a_record_is_the_same_to_the_last_byte_whether_its_parts_were_asked_before(attack, tmp_path):
    steps = "attack.n_iter=2" if attack == "autoattack_rand" else "attack.steps=2"
    words = [
        "purifier=lgap",
        f"attack={attack}",
        steps,
        "attack.draws=2",
        "n=2",
        "chunk=2",
        "score_draws=2",
        "threads=1",
    ]
    run([*words, f"outputs={tmp_path / 'asked'}"])
    known = tmp_path / "known"
    (tmp_path / "asked" / "contracts").rename(known / "contracts") if known.mkdir() is None else None
    heard = Heard()
    run([*words, f"outputs={known}"], loggers=Loggers([heard]))
    assert (heard.checks, heard.before) == ([], [1, 2])
    first, second = (only_record(outputs) / "summary.json" for outputs in (tmp_path / "asked", known))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"images": 3}'])
def test_a_damaged_note_is_none(content, tmp_path):
    checks(tmp_path)
    for number, file in enumerate(sorted((tmp_path / "contracts").glob("*.json"))):
        whole = file.read_text()
        file.write_text(content)
        assert checks(tmp_path, f"score_draws={3 + len(file.stem) + number}") in (PARTS, VIEW)
        assert file.read_text() == whole, "and is written anew"


def test_a_note_that_cannot_be_written_costs_nothing_else(tmp_path):
    (tmp_path / "contracts").write_text("a file where a folder belongs")
    assert checks(tmp_path) == ALL


def test_a_broken_promise_is_not_kept(tmp_path):
    (tmp_path / "conf" / "purifier").mkdir(parents=True)
    content: dict[str, Any] = {"_target_": "odd_parts.Odd", "kind": "batch_mean"}
    (tmp_path / "conf" / "purifier" / "odd.yaml").write_text(yaml.safe_dump(content))
    words = [f"hydra.searchpath=[file://{tmp_path}/conf]", *CELL, "purifier=odd", f"outputs={tmp_path}/out"]
    for _ in range(2):
        with pytest.raises(ValueError, match="differently in another batch"):
            run(words)
    assert not (tmp_path / "out" / "contracts").exists()
