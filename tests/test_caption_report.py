"""`report --captions` from hand-made records with known answers, and the authors' own captions."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from cells import called

from lgap_bench.metric.caption import bleu
from lgap_bench.record import Record
from lgap_bench.report.pages.captions import fidelity, per_class
from lgap_bench.runtime.files import content_id

CLASSES = ["cat", "dog"]


def record(folder: Path, seed: int, attack: str, captions: list[str], right: list[list[int]], **more) -> Record:
    """Four images, cat cat dog dog; the fourth one's clean caption is wrong; `right`: draws of each image that are."""
    label = np.array([0, 0, 1, 1])
    prediction = np.where(np.array(right, bool), label[:, None], 1 - label[:, None]).T
    chunk = {
        "id": np.arange(4),
        "label": label,
        "failed": np.zeros(4, bool),
        "clean_prediction": np.stack([label, label]),
        "attacked_prediction": prediction,
        "clean_caption": np.array(["a photo of a cat", "a photo of a cat", "a photo of a dog", "a photo of a cow"]),
        "clean_caption_label": np.array([True, True, True, False]),
        "attacked_caption": np.array(captions),
        "attacked_caption_label": np.array([CLASSES[k] in c for k, c in zip(label, captions, strict=True)]),
        **{name: np.array(values) for name, values in more.items()},
    }
    identity = {"attack": attack, "seed": seed}
    made = Record(folder / "records" / content_id(identity))
    made.begin({"dataset": {"classes": CLASSES}}, identity)
    names = {f"{key}_name": "x" for key in ("purifier", "dataset", "classifier", "captioner")} | {"attack_name": attack}
    summary = {"seed": seed, "n": 4, "norm": "linf", "eps": "8/255", "view": "bpda", "view_name": "bpda", "failed": 0, **names}  # fmt: skip
    made.finish([chunk], summary, {"seconds": 1.0})
    return made


CAPTIONS = ["a photo of a cat", "a photo of a dog", "a photo of a dog", "x y z"]


def test_report_rows_have_the_answers_known_by_hand(tmp_path):
    one = record(tmp_path, 0, "pgd", CAPTIONS, [[1, 1], [0, 1], [1, 0], [0, 0]], attacked_caption_target=[0, 1, 0, 0])
    (row,) = fidelity([[one]])
    assert (row["label_clean"], row["label_attacked"]) == (75, 50)
    assert row["failure"] == pytest.approx(100 / 3)
    assert row["target"] == 25
    cat_dog = bleu("a photo of a dog", "a photo of a cat")
    assert row["bleu"] == pytest.approx(100 * (1 + cat_dog + 1 + 0) / 4)
    assert row["rouge"] == pytest.approx(100 * (1 + 0.8 + 1 + 0) / 4)
    assert row["clip_clean"] is None
    assert (row["kept_n"], row["kept_robust"]) == (2, 75)
    assert (row["lost_n"], row["lost_robust"]) == (2, 25)
    assert row["kept_low"] <= 75 <= row["kept_high"]
    assert 1 - cat_dog <= 0.5
    assert [row[f"{name}_n"] for name in ("same", "near", "far")] == [2, 1, 1]
    assert [row[f"{name}_robust"] for name in ("same", "near", "far")] == [75, 50, 0]
    classes = per_class([[one]])
    assert [(r["class"], r["n"], r["pgd"]) for r in classes] == [("cat", 2, 50.0), ("dog", 1, 0.0)]


def test_report_merges_seeds_leaves_failed_samples_out_and_names_its_columns_apart(tmp_path):
    seeds = [
        record(tmp_path, 0, "pgd", CAPTIONS, [[1, 1], [0, 1], [1, 0], [0, 0]]),
        record(tmp_path, 1, "pgd", ["a cow"] * 4, [[0, 0]] * 4, failed=[False, True, False, False]),
    ]
    other = record(tmp_path, 0, "bpda", CAPTIONS, [[1, 1]] * 4)
    row, second = fidelity([seeds, [other]])
    assert row["seeds"] == 2
    assert row["label_attacked"] == pytest.approx(100 * 2 / 6)
    assert row["failure"] == pytest.approx(100 * 2 / 4)
    assert (row["kept_n"], row["lost_n"]) == (2, 4)
    assert row["lost_robust"] == 0
    assert second["attack"] == "bpda"
    first = per_class([seeds, [other]])[0]
    assert set(first) == {"dataset", "class", "n", "pgd", "bpda"}
    assert first["pgd"] == pytest.approx(50)


def test_the_command_prints_and_writes_both_tables(tmp_path):
    record(tmp_path, 0, "pgd", CAPTIONS, [[1, 1], [0, 1], [1, 0], [0, 0]])
    out = tmp_path / "table.csv"
    done = called("report", "--captions", "--outputs", str(tmp_path), "--csv", str(out), "--markdown")
    assert done.returncode == 0, done.stderr
    assert "| pgd | x | bpda | 8/255 | 4 | 1 | 75.0 | 50.0 |" in done.stdout
    assert "| x | cat | 2 | 50.0 |" in done.stdout
    assert "clip" not in done.stdout, "an empty column"
    assert out.read_text().startswith("purifier,dataset")
    assert (tmp_path / "table_classes.csv").read_text().splitlines()[1] == "x,cat,2,50.0"


SCRIPTS = Path(__file__).parent.parent / "scripts"
REAL = Path(__file__).parents[2] / "shared" / "data" / "lgap_captions" / "caption_list_cifar10.json"


@pytest.fixture(scope="module")
def authors():
    spec = importlib.util.spec_from_file_location("authors_captions", SCRIPTS / "authors_captions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_authors_format_is_read_and_counted_with_synonyms(authors, tmp_path):
    entries = [("car", "a small car in the rain", "a sedan by the lake"), ("frog", "a toad under a fern", "a dog"),
               ("frog", "a wet stone", "a wet stone")]  # fmt: skip
    content = [{"label": k, "caption": "-", "clean_caption": [c], "adv_caption": [a]} for k, c, a in entries]
    file = tmp_path / "list.json"
    file.write_text(json.dumps(content))
    classes, synonyms = authors.words(authors.DATASET)
    assert set(synonyms) == set(classes)
    rows = {row["class"]: row for row in authors.rows(authors.read(file), classes, synonyms)}
    assert list(rows) == ["all", "chance", "automobile", "frog"]
    assert rows["chance"]["label_adv"] == 0
    shifted = [bleu(entries[(i + 1) % 3][2], entries[i][1]) for i in range(3)]
    assert rows["chance"]["bleu"] == pytest.approx(100 * sum(shifted) / 3)
    assert rows["automobile"]["label_adv"] == 100
    assert rows["automobile"]["bleu"] == pytest.approx(100 * bleu(entries[0][2], entries[0][1]))
    assert (rows["frog"]["label_clean"], rows["frog"]["label_adv"], rows["frog"]["failure"]) == (50, 0, 100)
    assert rows["all"]["failure"] == pytest.approx(50)
    assert {row["class"]: row for row in authors.rows(authors.read(file), classes, {})}["frog"]["failure"] is None
    file.write_text('[{"label": "cat"}]')
    with pytest.raises(ValueError, match="entry 0 has not a label"):
        authors.read(file)


@pytest.mark.skipif(not REAL.exists(), reason="the authors' caption file is not beside this checkout")
def test_the_authors_own_file_gives_the_documented_figures(authors):
    """68.8 % of the clean and 21.7 % of the adversarial captions name the class; frogs 9.3 % and never."""
    rows = {r["class"]: r for r in authors.rows(authors.read(REAL), *authors.words(authors.DATASET))}
    assert rows["all"]["n"] == 10_000
    assert rows["all"]["label_clean"] == pytest.approx(68.8, abs=0.1)
    assert rows["all"]["label_adv"] == pytest.approx(21.7, abs=0.1)
    assert rows["frog"]["label_clean"] == pytest.approx(9.3, abs=0.1)
    assert rows["frog"]["label_adv"] == 0
