"""`lgap-bench robustbench`: RobustBench's own code reads what is written, and a random defense is not put up for its leaderboard."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from cells import SMALL, called, run

from lgap_bench.record import Record
from lgap_bench.runtime import files
from lgap_bench.verify.archive import pack
from lgap_bench.verify.robustbench import budget, ineligible, model_info

# As RobustBench has them: text, but for these.
TYPES = {"additional_data": (bool, type(None)), "number_forward_passes": int, "deterministic": bool, "unreliable": bool}


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Of a defense that draws nothing."""
    outputs = tmp_path_factory.mktemp("fixed")
    return run(["purifier=none", "attack=pgd", "keep_images=true", *SMALL, f"outputs={outputs}"])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return run(["purifier=lgap", "attack=bpda", *SMALL, f"outputs={tmp_path_factory.mktemp('drawn')}"])


def facts(**more: Any) -> dict[str, Any]:
    """Of a summary."""
    return {"dataset_name": "cifar10", "norm": "linf", "eps": "8/255", "n": 10_000, "score_draws": 1, "attack_name": "autoattack_standard", **more}  # fmt: skip


def test_every_field_is_of_robustbenchs_type(fixed):
    from robustbench.utils import ModelInfo

    info = model_info(fixed, {"reported": "70.69"})
    assert {
        "link",
        "name",
        "authors",
        "dataset",
        "venue",
        "architecture",
        "eps",
        "clean_acc",
        "footnote",
    } <= info.keys()
    assert set(ModelInfo.__annotations__) - info.keys() == {"autoattack_acc", "corruptions_acc"}  # of another attack
    assert [key for key, value in info.items() if not isinstance(value, TYPES.get(key, str))] == []
    assert re.fullmatch(r"\d+\.\d\d", info["clean_acc"])
    assert info["clean_acc"] == f"{fixed.summary()['natural']['mean']:.2f}"
    assert info["external"] == f"{fixed.summary()['robust']['mean']:.2f}"
    assert info["eps"] == "48/255"


def test_robustbenchs_own_table_shows_it(fixed, tmp_path, monkeypatch, capsys):
    from robustbench.utils import list_available_models

    info = {**model_info(fixed, {"name": "Ours", "link": "https://example.org"}), "dataset": "cifar10"}
    folder = tmp_path / "model_info" / "cifar10" / "Linf"
    folder.mkdir(parents=True)
    (folder / "Standard.json").write_text(json.dumps(info))
    monkeypatch.chdir(tmp_path)
    list_available_models("cifar10", "Linf")
    row = capsys.readouterr().out.splitlines()[-1]
    assert f"{float(info['clean_acc']):.2f}%" in row
    assert f"{float(info['external']):.2f}%" in row
    assert "Unpublished" in row


def test_a_random_defense_is_not_put_up_for_the_leaderboard(drawn, fixed):
    info = model_info(drawn, {})
    assert info["deterministic"] is False
    assert "Not leaderboard-eligible: the defense is randomized" in info["footnote"]
    assert "autoattack_acc" not in info
    assert model_info(fixed, {})["deterministic"] is True


def test_conditions_of_the_leaderboard_are_named_one_by_one():
    assert ineligible(facts()) == []
    assert ineligible(facts(norm="l2", eps="0.5")) == []
    assert ineligible(facts(score_draws=10)) == ["the defense is randomized"]
    assert ineligible(facts(n=512)) == ["512 of 10000 images"]
    assert ineligible(facts(eps="4/255")) == ["linf 4/255 is none of its threats there"]
    assert ineligible(facts(attack_name="reduced_autoattack_standard")) == ["not attacked by the standard AutoAttack"]
    assert ineligible(facts(dataset_name="digits")) == ["digits is none of its data sets"]


@pytest.mark.parametrize(
    ("norm", "eps", "text"),
    [("linf", "8/255", "8/255"), ("linf", "0.03137254901960784", "8/255"), ("linf", "0.03", "0.03"), ("l2", "0.5", "0.5"), ("l2", "1", "1"), ("linf", "16/510", "8/255")],
)  # fmt: skip
def test_budgets_are_written_as_robustbench_writes_them(norm, eps, text):
    assert budget(facts(norm=norm, eps=eps)) == text


def test_autoattack_is_its_own_field(fixed, tmp_path):
    copy = Record(Path(shutil.copytree(fixed.folder, tmp_path / fixed.folder.name)))
    held = {key: value for key, value in copy.summary().items() if key != "summary_id"} | {
        "attack_name": "autoattack_standard"
    }
    files.write_json(copy.folder / "summary.json", {**held, "summary_id": files.content_id(held)})
    info = model_info(copy, {})
    assert info["autoattack_acc"] == f"{held['robust']['mean']:.2f}"
    assert "external" not in info


def test_huggingface_reads_the_model_card(drawn):
    from huggingface_hub.repocard_data import model_index_to_eval_results

    done = called("robustbench", str(drawn.folder), "name=Ours: a 'name'", "card=true")
    head = yaml.safe_load(done.stdout.split("---\n")[1])
    name, results = model_index_to_eval_results(head["model-index"])
    assert name == "Ours: a 'name'"
    assert [each.metric_value for each in results] == [
        round(drawn.summary()[key]["mean"], 2) for key in ("natural", "robust")
    ]


def test_an_archive_is_as_good_as_its_folder(fixed, tmp_path):
    folder, archive = (
        called("robustbench", str(fixed.folder)),
        called("robustbench", str(pack(fixed, tmp_path / "x.tar.gz"))),
    )
    assert json.loads(folder.stdout) == model_info(fixed, {})
    assert archive.stdout == folder.stdout


def test_bad_words_and_records_are_one_line(fixed, tmp_path):
    copy = Path(shutil.copytree(fixed.folder, tmp_path / fixed.folder.name))
    (copy / "samples.parquet").write_bytes(b"")
    for words, said in (
        ((str(fixed.folder), "nme=x"), "nme=x is not a key"),
        ((str(fixed.folder), "card=yes"), "card=yes is not a key"),
        ((str(tmp_path / "none"),), "does not exist"),
        ((str(copy),), "damaged"),
    ):
        done = called("robustbench", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
