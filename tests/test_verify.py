"""`lgap-bench verify`: an honest record agrees on new draws, and a number, an image or a network that is not its own does not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
import yaml
from cells import SMALL, called, run

from lgap_bench.cell.compose import resolved
from lgap_bench.cell.restore import restored
from lgap_bench.record import Record
from lgap_bench.runtime import files
from lgap_bench.verify.again import placed
from lgap_bench.verify.archive import pack
from lgap_bench.verify.command import verify
from lgap_bench.verify.judge import Compared, compared
from scripts.verified import share

CELL = ["purifier=downsample", "attack=pgd", "keep_images=true", *SMALL]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return run([*CELL, "n=16", f"outputs={tmp_path_factory.mktemp('kept')}"])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Of a randomized defense."""
    outputs = tmp_path_factory.mktemp("drawn")
    return run(["purifier=lgap", "attack=bpda", "keep_images=true", *SMALL, "score_draws=4", f"outputs={outputs}"])


@pytest.fixture
def copy(kept: Record, tmp_path: Path) -> Record:
    return Record(Path(shutil.copytree(kept.folder, tmp_path / "theirs" / kept.folder.name)))


def sealed(record: Record, **changes: Any) -> Record:
    """The record with other content, and seals to match: what somebody makes who wants to be believed."""
    for name, content in changes.items():
        if name == "config":
            files.write_yaml(record.folder / "config.yaml", content)
        elif name == "identity":
            files.write_json(record.folder / "identity.json", content)
        elif name == "samples":
            parquet.write_table(pyarrow.table(content), record.folder / "samples.parquet")
    record = Record(record.folder.rename(record.folder.with_name(files.content_id(record.identity()))))
    summary = {**json.loads((record.folder / "summary.json").read_text()), **changes.get("summary", {})}
    held = {key: value for key, value in summary.items() if key != "summary_id"}
    for key, name in (("samples_sha256", "samples.parquet"), ("identity_sha256", "identity.json")):
        held[key] = record._sha256(name)
    files.write_json(record.folder / "summary.json", {**held, "summary_id": files.content_id(held)})
    run_ = {**record.run(), "config_sha256": record._sha256("config.yaml")}
    files.write_json(record.folder / "run.json", run_)
    record.summary()
    return record


def asked(where: Path, tmp_path: Path, *words: str) -> Any:
    return called("verify", str(where), f"outputs={tmp_path / 'out'}", "seed=5", *words)


def refused(done: Any) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_record_agrees_from_its_folder_and_from_its_archive(kept, tmp_path):
    done = asked(kept.folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "agree: the 95 % interval" in done.stdout
    packed = asked(pack(kept, tmp_path / "x.tar.gz"), tmp_path)
    assert packed.stdout == done.stdout


def test_a_defense_without_randomness_gives_every_answer_again(kept, tmp_path):
    found = verify(kept.folder, {"outputs": str(tmp_path), "seed": 5})
    assert [line.changed for line in found.lines] == [0, 0]
    assert [line.again for line in found.lines] == [kept.summary()[title]["mean"] for title in ("natural", "robust")]


def test_a_random_defense_is_scored_on_draws_that_the_record_did_not_see(drawn, tmp_path):
    found = verify(drawn.folder, {"outputs": str(tmp_path), "seed": 5})
    (made,) = (Record(folder) for folder in (tmp_path / "verified").iterdir())
    assert made.samples()["attacked_margin"] != drawn.samples()["attacked_margin"]
    assert made.samples()["linf"] == drawn.samples()["linf"]
    assert found.draws == 4
    assert found.agrees


def test_the_record_and_its_folder_stay_as_they_were(kept, tmp_path):
    def state() -> dict[str, bytes]:
        root = kept.folder.parent.parent
        return {
            str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and "contracts" not in path.parts
        }

    before = state()
    verify(kept.folder, {"outputs": str(kept.folder.parent.parent), "seed": 9})
    after = {path: content for path, content in state().items() if "/verified/" not in path}
    assert after == before


def test_new_scores_lie_below_ones_own_outputs_and_not_where_the_record_says(copy, tmp_path, monkeypatch):
    theirs = tmp_path / "chosen by a stranger"
    record = sealed(copy, config={**copy.config(), "outputs": str(theirs)})
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    assert called("verify", str(record.folder), "seed=5").returncode == 0
    assert not theirs.exists()
    assert len(list((here / "outputs" / "verified").iterdir())) == 1


def test_data_that_lie_elsewhere_are_found_by_word_and_by_environment(monkeypatch):
    plain = {
        "data": "/theirs/data",
        "checkpoints": "c",
        "dataset": {"root": "/theirs/data/cifar", "caption": "/theirs/database"},
    }
    assert placed(plain, {"data": "/mine"})["dataset"] == {"root": "/mine/cifar", "caption": "/theirs/database"}
    monkeypatch.setenv("LGAP_BENCH_DATA", "/ours")
    assert placed(plain, {})["dataset"]["root"] == "/ours/cifar"
    assert placed(plain, {"data": "/mine"})["data"] == "/mine"
    assert plain["data"] == "/theirs/data"


def test_a_number_that_was_made_up_disagrees(copy, tmp_path):
    samples = copy.samples()
    samples["attacked_prediction"] = [[label] for label in samples["label"]]
    robust = {**copy.summary()["robust"], "mean": 100.0}
    done = asked(sealed(copy, samples=samples, summary={"robust": robust}).folder, tmp_path)
    assert done.returncode == 1
    assert "robust    recorded 100.0   here   " in done.stdout
    assert "  DISAGREE: " in done.stdout


def test_an_image_outside_the_ball_disagrees_and_nothing_is_scored(copy, tmp_path):
    held = files.read_npz(copy.folder / "images.npz", "")
    held["attacked"][3] = 1 - held["attacked"][3]
    files.write_npz(copy.folder / "images.npz", held)
    done = asked(copy.folder, tmp_path)
    assert done.returncode == 1
    assert f"the image of sample {copy.samples()['id'][3]} is" in done.stdout
    assert not (tmp_path / "out" / "verified").exists()


@pytest.mark.parametrize("change", ["moved", "fewer", "other ids", "another shape"])
def test_images_that_are_not_the_recorded_ones_disagree(copy, tmp_path, change):
    held = files.read_npz(copy.folder / "images.npz", "")
    if change == "moved":  # to its clean image's other side, inside the ball
        held["attacked"][0] += np.where(held["attacked"][0] > 0.5, -0.01, 0.01).astype(np.float32)
    elif change == "fewer":
        held = {key: value[:5] for key, value in held.items()}
    elif change == "other ids":
        held["ids"] = held["ids"] + 1
    else:
        held["attacked"] = held["attacked"][..., :16]
    files.write_npz(copy.folder / "images.npz", held)
    done = asked(copy.folder, tmp_path)
    assert done.returncode == 1
    assert "DISAGREE: the images" in done.stdout


def test_a_record_of_other_data_is_refused(copy, tmp_path):
    samples = copy.samples()
    samples["linf"] = [value + 0.01 for value in samples["linf"]]
    assert "other images here" in refused(asked(sealed(copy, samples=samples).folder, tmp_path))
    samples["label"] = samples["label"][::-1]
    copy = Record(next((tmp_path / "theirs").iterdir()))
    right = {title: {**copy.summary()[title], "mean": 100 * float(np.mean(np.asarray(samples[f"{name}_prediction"])[:, 0] == samples["label"]))} for title, name in (("natural", "clean"), ("robust", "attacked"))}  # fmt: skip
    assert "other ids or labels" in refused(asked(sealed(copy, samples=samples, summary=right).folder, tmp_path))


def test_a_record_of_other_weights_is_refused_by_key(copy, tmp_path):
    identity = copy.identity()
    identity["classifier"]["weights"] = "0" * 64
    said = refused(asked(sealed(copy, identity=identity).folder, tmp_path))
    assert "classifier.weights=000000000000..., here it is " in said
    assert "classifier.weights=PATH" in said


def test_weights_may_lie_elsewhere_but_must_be_the_same(kept, tmp_path):
    assert "classifier.weights" in refused(
        asked(kept.folder, tmp_path, "classifier.weights=embedded:digits/adversarial")
    )
    from lgap_bench.runtime.weights import locate

    elsewhere = shutil.copytree(locate("embedded:digits/standard"), tmp_path / "mine")
    assert asked(kept.folder, tmp_path, f"classifier.weights={elsewhere}").returncode == 0


def test_a_stage_that_gave_other_weights_is_refused_before_and_after_it_is_made_here(tmp_path):
    words = ["finetune=clean", "finetune.epochs=1", "finetune.n=32", *CELL, f"outputs={tmp_path / 'made'}"]
    record = run(words)
    assert called("verify", str(record.folder), f"outputs={tmp_path / 'made'}", "seed=5").returncode == 0
    stages = record.summary()["stages"]
    stages["finetune"]["sha256"] = "0" * 64
    record = sealed(record, summary={"stages": stages})
    for outputs in ("made", "new"):  # where the weights are there already, and where they are trained first
        done = called("verify", str(record.folder), f"outputs={tmp_path / outputs}", "seed=6")
        assert done.returncode == 1
        assert done.stdout == ""
        assert "finetune gave other weights here" in done.stderr.splitlines()[-1]
    assert len(list((tmp_path / "made" / "verified").iterdir())) == 1, "what was refused before has no score"


def test_other_code_and_another_release_are_said_and_not_refused(copy, tmp_path):
    identity = copy.identity()
    identity["code"] = {"lgap_bench.attack.pgd": "0" * 64}
    record = sealed(copy, identity=identity)
    files.write_json(record.folder / "run.json", {**record.run(), "lgap-bench": "0.0.9"})
    done = asked(record.folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "code that is not the same: " in done.stdout
    assert "made by lgap-bench 0.0.9" in done.stdout


@pytest.mark.parametrize("target", ["os.system", "subprocess.run", "lgap_bench.runtime.files.write_text", "their.purifier.Own", "lgap_bench.own.live.part"])  # fmt: skip
def test_code_that_a_stranger_names_is_not_called(copy, tmp_path, target):
    config = copy.config()
    config["purifier"] = {"_target_": target, "path": str(tmp_path / "called"), "text": "x"}
    said = refused(asked(sealed(copy, config=config).folder, tmp_path))
    assert target in said
    assert not (tmp_path / "called").exists()


def test_a_function_that_a_stranger_has_built_a_part_with_is_not_called(copy, tmp_path):
    config = copy.config()
    config["classifier"] = {"_target_": "lgap_bench.classifier.callable.load", "build": "os:mkdir", "arguments": {"path": str(tmp_path / "called")}}  # fmt: skip
    assert "os.mkdir" in refused(asked(sealed(copy, config=config).folder, tmp_path))
    assert not (tmp_path / "called").exists()


def test_a_value_that_would_be_computed_is_refused(copy, tmp_path):
    config = (copy.folder / "config.yaml").read_text().replace("a photo of a handwritten {label}", "'${oc.env:HOME}'")
    (copy.folder / "config.yaml").write_text(config)
    assert "${oc.env:HOME}" in refused(asked(sealed(copy).folder, tmp_path))


def test_bad_words_and_places_are_one_line(kept, tmp_path):
    for words, said in (
        (("seed=0",), "seed=0 is the record's own"),
        (("seed=-1",), "seed=-1 is not in"),
        (("seed=x",), "seed=x is not in"),
        (("n=3",), "n=3 is not a key of verify"),
        (("purifier.nothing=3",), "no path of that name"),
        (("device=tpu",), "device=tpu"),
    ):
        assert said in refused(called("verify", str(kept.folder), f"outputs={tmp_path}", *words))
    assert "does not exist" in refused(called("verify", str(tmp_path / "none")))
    assert "no finished record" in refused(called("verify", str(tmp_path)))


def test_a_record_without_images_says_how_to_get_them(tmp_path):
    record = run(["purifier=none", "attack=pgd", *SMALL, f"outputs={tmp_path}"])
    assert "keep_images=true" in refused(called("verify", str(record.folder)))


def test_a_config_is_the_cell_that_it_was(tmp_path):
    for words in (["purifier=lgap"], ["dataset=scenes"], ["experiment=lgap/table2/lgap", "dataset=digits"]):
        cell = resolved(words)
        again = restored(yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(cell.plain(), default=str)))))
        for each in dataclasses.fields(cell):
            if each.name != "numbers":
                assert getattr(again, each.name) == getattr(cell, each.name), each.name


def test_an_older_config_gets_the_defaults_of_what_it_did_not_know():
    plain = json.loads(json.dumps(resolved(["purifier=none"]).plain(), default=str))
    del plain["save_every"], plain["clip"]
    again = restored(plain)
    assert (again.save_every, again.clip) == (180, None)


def line(low: float = -1, high: float = 1, turned: int = 0, images: int = 8) -> Compared:
    return Compared("robust", 50, 50, 0, low, high, turned, turned, images)


def test_agreement_is_the_interval_of_the_difference_holding_zero():
    ends = ((-1, 1), (0, 1), (-1, 0), (0.1, 1), (-1, -0.1))
    assert [line(*each).agrees for each in ends] == [True, True, True, False, False]


def test_honest_records_of_random_defenses_agree_and_raised_ones_do_not():
    assert share(128, 10, 0.5, 0, 200) < 10
    assert share(128, 10, 0.5, 10, 200) > 95


def test_fixed_answers_may_be_turned_by_rounding_alone():
    assert [line(turned=n).agrees for n in (0, 1, 2)] == [True, True, False]
    assert [line(turned=n, images=512).agrees for n in (6, 7)] == [True, False]


def test_three_images_more_than_a_fixed_defense_has_are_found_whatever_margins_are_claimed(kept, copy, tmp_path):
    """An interval over sixteen images is too wide to tell."""
    samples = copy.samples()
    right = [guess[0] == label for guess, label in zip(samples["attacked_prediction"], samples["label"], strict=True)]
    for row in [row for row, each in enumerate(right) if not each][:3]:
        samples["attacked_prediction"][row], samples["attacked_margin"][row], right[row] = (
            [samples["label"][row]],
            [1e-6],
            True,
        )
    robust = {**copy.summary()["robust"], "mean": 100 * float(np.mean(right))}
    done = asked(sealed(copy, samples=samples, summary={"robust": robust}).folder, tmp_path)
    assert done.returncode == 1
    assert "far from turning" in done.stdout


def test_samples_whose_attack_failed_count_neither_way(kept, copy):
    samples = copy.samples()
    samples["failed"] = [True, *samples["failed"][1:]]
    robust = float(
        np.mean(
            [100 * (p[0] == y) for p, y in zip(samples["attacked_prediction"][1:], samples["label"][1:], strict=True)]
        )
    )
    changed = sealed(
        copy, samples=samples, summary={"failed": 1, "robust": {**copy.summary()["robust"], "mean": robust}}
    )
    natural, attacked = compared(changed, kept)
    assert (natural.images, attacked.images) == (16, 15)
