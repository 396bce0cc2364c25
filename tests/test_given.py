"""attack=given: a record's own images score again, in every file format; and every bad file is one line with its mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cells import identified, run
from safetensors.torch import save_file

from lgap_bench.attack.given import Given
from lgap_bench.attack.problem import Problem
from lgap_bench.attack.threat import Threat
from lgap_bench.dataset.base import DataSet
from lgap_bench.dataset.digits import digits
from lgap_bench.record import Record

LINF = Threat("linf", 0.1)


@pytest.fixture(scope="module")
def data() -> DataSet:
    return digits()


@pytest.fixture(scope="module")
def attacked(data: DataSet) -> torch.Tensor:
    """Images of the first six samples, each inside the ball and its own."""
    return (data.images[:6] + 0.05).clamp(0, 1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Record:
    outputs = tmp_path_factory.mktemp("kept")
    cell = ["purifier=none", "attack=pgd", "attack.steps=2", "n=6", "chunk=4", "keep_images=true", "threads=1"]
    return run([*cell, f"outputs={outputs}"])


def again(kept: Record, file: Path, outputs: Path, *more: str) -> dict[str, list[Any]]:
    cell = ["purifier=none", "attack=given", f"attack.file={file}", "n=6", "chunk=4", "threads=1"]
    return run([*cell, *more, f"outputs={outputs}"]).samples()


def saved(folder: Path, suffix: str, images: Any, ids: Any = None) -> str:
    """A file of that kind with the images and, where its kind can hold them, ids."""
    file = folder / f"made{suffix}"
    arrays = {"attacked": images} | ({} if ids is None else {"ids": ids})
    tensors = {name: torch.as_tensor(np.asarray(value)) for name, value in arrays.items()}
    if suffix == ".npz":
        np.savez(file, **{name: np.asarray(value) for name, value in arrays.items()})
    elif suffix == ".npy":
        np.save(file, np.asarray(images))
    elif suffix == ".pt":
        torch.save(tensors["attacked"] if ids is None else tensors, file)
    else:
        save_file(tensors, file)
    return str(file)


def test_a_records_images_get_the_predictions_that_they_had(kept, tmp_path):
    """Another chunk as well: an image's answer hangs on its sample alone."""
    found = again(kept, kept.folder / "images.npz", tmp_path, "chunk=5")
    for column in ("id", "attacked_prediction", "attacked_margin", "clean_prediction", "linf", "attacked_undefended"):
        assert np.allclose(found[column], kept.samples()[column], atol=1e-4), column


def test_another_defense_meets_the_same_images(kept, tmp_path):
    found = again(kept, kept.folder / "images.npz", tmp_path, "purifier=downsample")
    assert found["linf"] == kept.samples()["linf"]
    assert not np.allclose(found["attacked_margin"], kept.samples()["attacked_margin"])


def test_a_records_own_images_say_whose_they_are_wherever_they_are_carried(kept, tmp_path):
    with np.load(kept.folder / "images.npz") as arrays:
        assert arrays["ids"].dtype == np.int64
        assert arrays["ids"].tolist() == kept.samples()["id"]
        turned = {name: array[::-1] for name, array in arrays.items()}
    alone = tmp_path / "images.npz"
    np.savez(alone, **turned)  # without the samples.parquet that stood beside them, and in another order
    assert again(kept, alone, tmp_path / "out")["attacked_margin"] == kept.samples()["attacked_margin"]
    ids = [identified(["attack=given", f"attack.file={file}"])["cell"] for file in (kept.folder / "images.npz", alone)]
    assert ids[0] != ids[1]


def test_the_content_of_the_file_is_in_the_identity_and_its_place_is_not(tmp_path, attacked):
    (tmp_path / "b").mkdir()
    one, same = (saved(folder, ".npy", attacked) for folder in (tmp_path, tmp_path / "b"))
    other = saved(tmp_path, ".npz", attacked.flip(0))
    ids = [identified(["attack=given", f"attack.file={file}"])["cell"] for file in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_ids_bring_every_image_to_its_sample_in_any_order(tmp_path, data, attacked, problem_of, suffix, dtype):
    order = [3, 0, 5, 1, 4, 2]
    file = saved(tmp_path, suffix, attacked[order].to(dtype), data.ids[order])
    given = Given(file)
    given.arrange(data, 6, LINF)
    found = given(problem_of([4, 2]))
    assert found.dtype == torch.float32
    assert torch.allclose(found, attacked[[4, 2]], atol=1e-3)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt", ".safetensors"])
def test_without_ids_images_are_the_first_samples_in_their_order(tmp_path, data, attacked, problem_of, suffix):
    given = Given(saved(tmp_path, suffix, attacked))
    given.arrange(data, 5, LINF)
    assert torch.equal(given(problem_of([4, 2])), attacked[[4, 2]])


@pytest.fixture
def problem_of(data: DataSet, make_problem: Any, ten: Any) -> Any:
    def make(rows: list[int]) -> Problem:
        return make_problem(ten, data.images[rows], data.labels[rows], ids=data.ids[rows].tolist())

    return make


BAD = {
    "bytes": (lambda x, ids: ((255 * x).byte(), None), "holds uint8: give floating images in [0, 1], bytes divided by 255"),
    "bytes as floats": (lambda x, ids: (255 * x, None), "its image 0 leaves [0, 1]"),
    "not finite": (lambda x, ids: (x.where(x < 0.5, torch.nan), None), "its image 0 is not finite"),
    "channels last": (lambda x, ids: (x.permute(0, 2, 3, 1), None), "holds images of shape (32, 32, 3), and dataset=digits has (3, 32, 32)"),
    "one image": (lambda x, ids: (x[0], None), "is of shape (3, 32, 32): give images (n, C, H, W)"),
    "none": (lambda x, ids: (x[:0], None), "give images (n, C, H, W)"),
    "too few": (lambda x, ids: (x[:5], None), "holds 5 images, and n=6: lower n or give one image per sample"),
    "outside the ball": (lambda x, ids: (1 - x, None), "outside the linf ball of 0.1"),
    "another order": (lambda x, ids: (x.flip(0), None), "give images in the order of the cell's samples or with ids"),
    "unknown id": (lambda x, ids: (x, ids.where(ids != ids[2], 999_999)), "has no image of sample"),
    "an id twice": (lambda x, ids: (x, ids.where(ids != ids[2], ids[0])), "twice: give one image per sample"),
    "too few ids": (lambda x, ids: (x, ids[:5]), "holds 6 images and 5 ids"),
    "ids that are no numbers": (lambda x, ids: (x, ids.double()), "its ids are no list of whole numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_names_it_and_the_mend(tmp_path, data, attacked, name):
    change, told = BAD[name]
    file = saved(tmp_path, ".npz", *change(attacked, data.ids[:6]))
    with pytest.raises(ValueError) as caught:  # noqa: PT011  its words are compared below, brackets and all
        Given(file).arrange(data, 6, LINF)
    assert str(caught.value).startswith(f"attack.file={file}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt", ".safetensors"])
def test_a_page_saved_under_the_name_of_images_is_refused(tmp_path, suffix):
    file = tmp_path / f"page{suffix}"
    file.write_text("<!DOCTYPE html><html>\n<body>404: Not Found</body>\n</html>")
    with pytest.raises(ValueError, match=f"cannot be read as {suffix}") as caught:
        Given(str(file))
    assert "\n" not in str(caught.value)


def test_other_kinds_of_files_and_several_arrays_are_refused_with_what_to_do(tmp_path, attacked):
    (tmp_path / "images.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is none of \.npz, \.npy, \.pt, \.safetensors"):
        Given(str(tmp_path / "images.png"))
    np.savez(tmp_path / "two.npz", x=attacked.numpy(), y=attacked.numpy())
    with pytest.raises(ValueError, match="holds x, y: name the array of images attacked"):
        Given(str(tmp_path / "two.npz"))
    torch.save({"attacked": ["a list"]}, tmp_path / "list.pt")
    with pytest.raises(ValueError, match="attacked is of list"):
        Given(str(tmp_path / "list.pt"))


@pytest.mark.parametrize(
    "words, told",
    [
        (["attack.file=nowhere.npz"], "file=nowhere.npz does not exist"),
        ([], r"file=\?\?\?|attack.file"),
        (["attack.file=nowhere.npz", "view=full"], "view=full with attack=given: it needs view=none"),
    ],
)
def test_a_cell_without_its_images_is_refused_before_a_record_is_begun(tmp_path, words, told):
    with pytest.raises(Exception, match=told):
        run(["attack=given", *words, f"outputs={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_images_that_leave_the_ball_end_a_cell_before_it_scores(kept, tmp_path):
    with pytest.raises(ValueError, match=r"attack.file=.*outside the linf ball of 0.001: raise threat.eps"):
        again(kept, kept.folder / "images.npz", tmp_path, "threat.eps=0.001")
    assert not list(tmp_path.rglob("chunks"))
