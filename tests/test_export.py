"""A cell's attacked images as a data set: the same numbers from it, in 8 bits inside the ball, with a card."""

import json

import numpy as np
import pytest
from cells import SMALL, called, run
from PIL import Image

from lgap_bench.evaluation.export import to_8_bit
from lgap_bench.record import Record, records

CELL = ["purifier=downsample", "attack=pgd", "threat.eps=24/255", *SMALL]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("exported")
    done = called("run", *CELL, "export=true", f"outputs={outputs}", "logger=none")
    assert done.returncode == 0, done.stderr
    (folder,) = (outputs / "exports").iterdir()
    return outputs, folder, done.stdout


def test_the_float_images_score_the_same_again(made, tmp_path):
    outputs, folder, _ = made
    again = run(["purifier=downsample", "attack=given", f"attack.file={folder}/attacked.npz", "threat.eps=24/255",
                 *[word for word in SMALL if "steps" not in word], f"outputs={tmp_path}"])  # fmt: skip
    first, second = Record(outputs / "records" / folder.name).samples(), again.samples()
    for column in ("attacked_prediction", "attacked_margin", "attacked_undefended", "linf"):
        assert first[column] == second[column]


def test_the_8_bit_images_are_a_row_of_their_own_inside_the_ball(made):
    outputs, _, printed = made
    names = {record.summary()["attack_name"]: record for record in records(outputs)}
    assert set(names) == {"pgd", "given"}
    assert "rounded to 8 bits they score" in printed
    assert max(names["given"].samples()["linf"]) <= 24 / 255 + 1e-6
    assert names["given"].requests() == []


def test_the_folder_is_readable_as_images_with_metadata(made):
    _, folder, _ = made
    lines = [json.loads(line) for line in (folder / "images" / "metadata.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    held = np.load(folder / "attacked_8bit.npz")
    for line, image, name in zip(lines, held["attacked"], held["ids"], strict=True):
        assert line["file_name"] == f"{name}.png"
        pixels = np.asarray(Image.open(folder / "images" / line["file_name"]))
        assert np.array_equal(pixels.transpose(2, 0, 1) / np.float32(255), image)
        assert line["record"] == folder.name
        assert line["words"] == [
            ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"][line["labels"][0]]
        ]
    assert "attack=given" in (folder / "README.md").read_text()


def test_hugging_faces_datasets_reads_the_folder(made):
    datasets = pytest.importorskip("datasets")
    _, folder, _ = made
    read = datasets.load_dataset("imagefolder", data_dir=str(folder / "images"), split="train")
    assert len(read) == 8
    assert {"image", "labels", "attack", "eps", "success"} <= set(read.column_names)


@pytest.mark.parametrize("norm, eps", [("linf", 0.031), ("linf", 0.002), ("l2", 0.4), ("l2", 30.0)])
def test_rounding_never_leaves_the_ball(norm, eps):
    generator = np.random.RandomState(0)
    clean = generator.randint(0, 256, (20, 3, 8, 8)).astype(np.float32) / 255
    delta = generator.randn(*clean.shape).astype(np.float32)
    if norm == "linf":
        delta = eps * np.sign(delta)
    else:
        delta *= eps / np.sqrt((delta**2).sum((1, 2, 3), keepdims=True))
    attacked = (clean + delta).clip(0, 1)
    levels = to_8_bit(attacked, clean, norm, eps)
    moved = levels / np.float64(255) - clean.astype(np.float64)
    length = np.abs(moved).max((1, 2, 3)) if norm == "linf" else np.sqrt((moved**2).sum((1, 2, 3)))
    assert (length <= eps + 1e-6).all()
    if norm == "linf" and eps > 0.01:
        assert np.abs(levels / 255 - attacked).max() <= 1 / 255 + 1e-6


def test_a_budget_finer_than_8_bits_is_refused():
    clean = np.full((1, 3, 2, 2), 0.5, np.float32)  # between two levels
    with pytest.raises(ValueError, match="no 8-bit image lies inside the ball"):
        to_8_bit(clean, clean, "linf", 0.001)
