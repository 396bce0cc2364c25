"""Images of one's own: what a folder, an .npz or a parquet file holds is what is measured, or one line says why not."""

import io
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from cells import SMALL, called, identified, only_record, summary
from PIL import Image
from pyarrow import parquet

from lgap_bench.cell.compose import resolved
from lgap_bench.dataset import cifar as cifar_module
from lgap_bench.dataset.cifar import TEST_IDS, cifar
from lgap_bench.dataset.digits import digits
from lgap_bench.dataset.folder import images
from lgap_bench.dataset.imagenet import imagenet
from lgap_bench.dataset.npz import npz

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DATA = Path(os.environ.get("LGAP_BENCH_TEST_DATA", "nowhere"))  # cifar10_lossless/, imagenet_sample/
real = pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder of images that LGAP_BENCH_TEST_DATA names")


def refusal(call) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011 the message is looked at by the caller
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def picture(value: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.new("RGB", size, (value, 255 - value, 7))


def value_of(image: torch.Tensor) -> int:
    return round(255 * float(image[0, 0, 0]))


@pytest.fixture
def pets(tmp_path):
    """Three cats (0, 1, 2) and three dogs (10, 11, 12), PNG, one folder per class."""
    for name, first in (("cat", 0), ("dog", 10)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(3):
            picture(first + number).save(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path / "pets"


@pytest.fixture
def flat(tmp_path):
    """Four images in one folder, by number."""
    (tmp_path / "flat").mkdir()
    for number in range(4):
        picture(number).save(tmp_path / "flat" / f"i{number}.png")
    return tmp_path / "flat"


@pytest.fixture
def digit_arrays(tmp_path):
    """Sixteen digits as bytes, which the embedded classifier knows."""
    data = digits()
    bytes_ = (255 * data.images[:16]).round().byte().permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "digits.npz", images=bytes_, labels=data.labels[:16].numpy(), classes=np.array(data.classes))
    return tmp_path / "digits.npz"


# Folders


def test_class_folders_are_numbered_by_name_and_ids_do_not_depend_on_the_shuffle(pets):
    ordered, mixed = images(str(pets), data_seed=None), images(str(pets))
    assert ordered.classes == ("cat", "dog")
    assert [value_of(image) for image in ordered.images] == [0, 1, 2, 10, 11, 12]
    assert ordered.ids.tolist() == list(range(6))
    assert mixed.ids.tolist() != ordered.ids.tolist()
    for image, label, number in zip(mixed.images, mixed.labels, mixed.ids, strict=True):
        assert value_of(image) == value_of(ordered.images[int(number)])
        assert int(label) == int(number) // 3


def test_labels_follow_the_order_of_the_classes_that_are_given_and_not_that_of_the_folders(pets, tmp_path):
    given = images(str(pets), classes=["dog", "Cat"], data_seed=None)
    assert given.labels.tolist() == [1, 1, 1, 0, 0, 0]
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert images(str(pets), file=str(tmp_path / "classes.txt"), data_seed=None).labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert "the class dog is none of dataset.classes" in refusal(lambda: images(str(pets), classes=["cat", "horse"]))


def test_folders_whose_numbers_sort_otherwise_than_their_names_are_not_guessed_at(tmp_path):
    for name in ("2", "10"):
        (tmp_path / name).mkdir()
        picture(1).save(tmp_path / name / "a.png")
    assert "sort as numbers otherwise than as text" in refusal(lambda: images(str(tmp_path)))
    assert images(str(tmp_path), classes=["2", "10"], data_seed=None).labels.tolist() == [1, 0]


LABELS = {
    "numbers": "i0.png 3\ni1.png 0\ni2.png 1\ni3.png 2\n",
    "csv": "file,label\ni0.png,3\ni1.png,0\ni2.png,1\ni3.png,2\n",
    "other columns": "id,index,image,note\n9,3,i0.png,x\n8,0,i1.png,x\n7,1,i2.png,x\n6,2,i3.png,x\n",
    "without suffix": "ImageId,PredictionString\ni0,3\ni1,0\ni2,1\ni3,2\n",
}


@pytest.mark.parametrize("text", LABELS.values(), ids=LABELS)
def test_a_flat_folder_takes_its_labels_from_a_file_in_any_usual_form(flat, tmp_path, text):
    (tmp_path / "l.txt").write_text(text)
    data = images(str(flat), labels=str(tmp_path / "l.txt"), data_seed=None)
    assert data.labels.tolist() == [3, 0, 1, 2]
    assert data.classes == ("class 0", "class 1", "class 2", "class 3")
    (flat / "labels.csv").write_text("file,label\n" + "".join(f"i{n}.png,{'dog' if n else 'cat'}\n" for n in range(4)))
    beside = images(str(flat), data_seed=None)
    assert (beside.labels.tolist(), beside.classes) == ([0, 1, 1, 1], ("cat", "dog"))


BAD_LABELS = [
    ("", "is empty"),
    ("i0.png 1\ni9.png 1\n", "names i9.png, which is not in"),
    ("i0.png 1\ni1.png 1\n", "has no label of i2.png, 2 such images"),
    ("i0.png 1\ni0.png 2\ni2.png 0\ni3.png 0\n", "i0.png stands there twice"),
    ("i0.png\n", "line 1 is no file with a label"),
    ("file,label\ni0.png,\n", "line 2 is no file with a label"),
    ("name,kind\ni0.png,cat\n", "has the columns name, kind"),
    ("i0.png 1\ni1.png 1\ni2.png 1\ni3.png \xff\n", "none of dataset.classes"),
]


@pytest.mark.parametrize("text, said", BAD_LABELS)
def test_a_label_file_that_does_not_fit_is_one_line(flat, tmp_path, text, said):
    (tmp_path / "l.txt").write_text(text)
    assert said in refusal(lambda: images(str(flat), labels=str(tmp_path / "l.txt"), classes=["0", "1"]))


def test_folders_that_cannot_be_read_as_a_data_set_are_one_line(flat, pets, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refusal(lambda: images(str(tmp_path / "empty")))
    assert "is no folder" in refusal(lambda: images(str(tmp_path / "nowhere")))
    assert "give dataset.labels=file" in refusal(lambda: images(str(flat)))
    assert "they are the labels" in refusal(lambda: images(str(pets), labels="l.txt"))
    picture(3).save(pets / "stray.png")
    assert "beside class folders (cat)" in refusal(lambda: images(str(pets)))
    (pets / "stray.png").unlink()
    picture(3).save(pets / "cat" / "1.jpg")
    assert "1.jpg and 1.png are two files of one image" in refusal(lambda: images(str(pets)))


def test_mixed_sizes_need_a_resize_and_a_crop_and_a_crop_never_fills_with_black(pets):
    picture(5, (40, 32)).save(pets / "dog" / "2.png")
    data = images(str(pets), data_seed=None)
    assert "set dataset.resize and dataset.crop" in refusal(lambda: data.images[3:])
    assert images(str(pets), resize=16, crop=16).images[:].shape == (6, 3, 16, 16)
    assert "smaller than dataset.crop=33" in refusal(lambda: images(str(pets), crop=33, data_seed=None).images[:1])
    assert "is more than dataset.resize=16" in refusal(lambda: images(str(pets), resize=16, crop=17))


def test_grey_and_cmyk_are_read_as_rgb_and_a_damaged_file_is_named(pets):
    Image.new("L", (32, 32), 77).save(pets / "cat" / "0.png")
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(pets / "dog" / "9.jpg", quality=100)
    data = images(str(pets), data_seed=None)
    assert (data.images[0] == 77 / 255).all()
    assert torch.allclose(data.images[-1][:, 5, 5], torch.tensor([1.0, 0, 0]), atol=0.02)
    (pets / "dog" / "0.png").write_bytes(b"damaged")
    assert "dog/0.png cannot be read" in refusal(lambda: data.images[:])


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    peaks = []
    for count in (20, 200):
        folder = tmp_path / str(count) / "a"
        folder.mkdir(parents=True)
        for number in range(count):
            picture(number % 256, (128, 128)).save(folder / f"{number:04}.png")
        tracemalloc.start()
        data = images(str(folder.parent))
        for row in range(0, count, 10):
            data.images[row : row + 10].sum()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200 * 2000, "some hundred bytes of a path, and no pixels, may be held per image"


# ImageNet


@pytest.fixture
def both_layouts(tmp_path):
    """Two of three classes, in folders and flat, with a list that has synsets."""
    names = {"n00000002": "goldfish", "n00000001": "tench, Tinca tinca"}
    (tmp_path / "flat").mkdir()
    lines = []
    for place, synset in enumerate(sorted(names)):
        (tmp_path / "val" / synset).mkdir(parents=True)
        for number in range(4):
            name = f"ILSVRC2012_val_{2 * number + place + 1:08}.JPEG"
            picture(40 * place + number, (60, 50)).save(tmp_path / "flat" / name)
            picture(40 * place + number, (60, 50)).save(tmp_path / "val" / synset / name)
            lines.append(f"{name.removesuffix('.JPEG')},{synset} 85 1 499 272")
    (tmp_path / "words.txt").write_text("n00000001 tench, Tinca tinca\nn00000002 crane\nn00000003 crane\n")
    (tmp_path / "kaggle.csv").write_text("ImageId,PredictionString\n" + "\n".join(lines) + "\n")
    return tmp_path


def test_imagenet_flat_and_in_folders_are_the_same_images_labels_and_ids(both_layouts):
    given = {"file": str(both_layouts / "words.txt"), "subset": 6, "resize": 40, "crop": 32}
    folders = imagenet(str(both_layouts / "val"), **given)
    flat = imagenet(str(both_layouts / "flat"), labels=str(both_layouts / "kaggle.csv"), **given)
    assert folders.classes == ("tench", "crane (n00000002)", "crane (n00000003)")
    assert torch.equal(folders.labels, flat.labels)
    assert torch.equal(folders.ids, flat.ids)
    assert torch.equal(folders.images[:], flat.images[:])


def test_imagenets_list_has_to_know_every_class(both_layouts):
    (both_layouts / "words.txt").write_text("n00000001 tench\nn00000003 crane\n")
    given = {"file": str(both_layouts / "words.txt"), "subset": 6, "resize": 40, "crop": 32}
    assert "the class n00000002 is not in" in refusal(lambda: imagenet(str(both_layouts / "val"), **given))
    (both_layouts / "words.txt").write_text("n00000001 tench\ncrane\n")
    assert "'crane' has no synset" in refusal(lambda: imagenet(str(both_layouts / "val"), **given))


# Arrays


def arrays(folder: Path, name: str = "a.npz", **held) -> str:
    given = {"images": np.zeros((3, 32, 32, 3), np.uint8), "labels": np.arange(3)}
    np.savez(folder / name, **{key: value for key, value in {**given, **held}.items() if value is not None})
    return str(folder / name)


def test_bytes_and_floats_of_an_npz_are_the_same_images(tmp_path):
    values = np.random.RandomState(0).randint(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    held = npz(arrays(tmp_path, images=values, index=np.array([7, 5, 6])))
    again = npz(arrays(tmp_path, "b.npz", images=None, labels=None, x=values / 255, y=np.arange(3, dtype=np.uint8)))
    assert torch.equal(held.images[:], again.images[:])
    assert held.images.shape == (3, 3, 8, 9)
    assert held.ids.tolist() == [7, 5, 6]
    assert again.ids.tolist() == [0, 1, 2]
    assert torch.equal(held.images[torch.tensor([2, 0])], held.images[:][[2, 0]])
    assert torch.equal(held.images[1], torch.from_numpy(values[1]).permute(2, 0, 1).float() / 255)


BAD_ARRAYS = [
    ({"images": np.full((3, 8, 8, 3), 255.0)}, "float64 in [255, 255] and not in [0, 1]: divide by 255"),
    ({"images": np.full((3, 8, 8, 3), np.nan)}, "not in [0, 1]"),
    ({"images": np.zeros((3, 8, 8, 3), np.int64)}, "images are int64: store bytes"),
    ({"images": np.zeros((3, 3, 8, 8), np.uint8)}, "transpose(0, 2, 3, 1)"),
    ({"images": np.zeros((3, 64), np.uint8)}, "store (N, H, W, 3)"),
    ({"images": np.zeros((0, 8, 8, 3), np.uint8), "labels": np.zeros(0, int)}, "holds no image"),
    ({"labels": np.arange(4)}, "4 labels for 3 images"),
    ({"labels": np.ones(3)}, "labels are float64"),
    ({"labels": None}, "call one array labels or y"),
    ({"x": np.zeros((3, 8, 8, 3), np.uint8)}, "call one array images or x"),
    ({"index": np.array([1, 2, 1])}, "index 1 stands there twice"),
    ({"labels": np.array([0, -1, 1])}, "label -1 of image 1"),
    ({"images": np.array([{}, {}, {}])}, "is no .npz file of plain arrays"),
]


@pytest.mark.parametrize("held, said", BAD_ARRAYS)
def test_arrays_that_are_no_images_with_labels_are_one_line(tmp_path, held, said):
    assert said in refusal(lambda: npz(arrays(tmp_path, **held)))


def test_a_file_that_is_no_npz_or_names_classes_otherwise_is_one_line(tmp_path):
    file = Path(arrays(tmp_path, classes=np.array(["cat", "dog", "owl"])))
    assert npz(str(file)).classes == ("cat", "dog", "owl")
    assert "calls class 1 'dog', and dataset.classes 'owl'" in refusal(lambda: npz(str(file), ["cat", "owl", "dog"]))
    file.write_bytes(file.read_bytes()[:200])
    assert "is no .npz file" in refusal(lambda: npz(str(file)))
    assert "does not exist" in refusal(lambda: npz(str(tmp_path / "nowhere.npz")))


# CIFAR from other files


def encoded(value: int) -> bytes:
    held = io.BytesIO()
    picture(value).save(held, "PNG")
    return held.getvalue()


def hub_file(folder: Path, count: int = 10_000, names: tuple[str, ...] = TEN, column: str = "img", **more) -> Path:
    """`plain_text/test-*.parquet` as the hub stores CIFAR-10, every image of one of 256 colours."""
    kinds = [{"bytes": encoded(value), "path": None} for value in range(256)]
    columns = {column: [kinds[row % 256] for row in range(count)], "label": [row % 10 for row in range(count)], **more}
    features = {column: {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    (folder / "plain_text").mkdir(exist_ok=True)
    file = folder / "plain_text" / "test-00000-of-00001.parquet"
    parquet.write_table(pa.table(columns).replace_schema_metadata(meta), file)
    return file


def test_the_hubs_parquet_is_the_official_test_set_in_its_order(tmp_path, monkeypatch):
    hub_file(tmp_path)
    data = cifar("nowhere", TEN, files=str(tmp_path))
    assert len(data) == 10_000
    assert data.ids[:3].tolist() == [TEST_IDS, TEST_IDS + 1, TEST_IDS + 2]
    assert [value_of(data.images[row]) for row in (0, 255, 9_999)] == [0, 255, 9_999 % 256]
    assert data.labels[:11].tolist() == [*range(10), 0]
    chosen = np.array([700, 3, 700])
    monkeypatch.setattr(cifar_module, "entries", lambda **_: chosen)
    few = cifar("nowhere", TEN, files=str(tmp_path), subset={"name": "few"})
    assert [value_of(image) for image in few.images] == [700 % 256, 3, 700 % 256]
    assert few.ids.tolist() == [TEST_IDS + 700, TEST_IDS + 3, TEST_IDS + 700 + 10_000]


def test_a_part_of_cifar_is_known_by_its_index_and_lacks_what_a_subset_needs(tmp_path, monkeypatch):
    file = arrays(tmp_path, "test_part.npz", index=np.array([9, 4, 2]))
    data = cifar("nowhere", TEN, files=file)
    assert data.ids.tolist() == [TEST_IDS + 2, TEST_IDS + 4, TEST_IDS + 9], "in the official order"
    assert data.labels.tolist() == [2, 1, 0]
    assert torch.equal(cifar("nowhere", TEN, files=str(tmp_path)).ids, data.ids), "found by the part's name in a folder"
    monkeypatch.setattr(cifar_module, "entries", lambda **_: np.array([4, 5]))
    few = {"files": file, "subset": {"name": "few"}}
    assert "lacks test image 5, 1 of the 2 of subset few" in refusal(lambda: cifar("nowhere", TEN, **few))


def test_training_images_are_split_as_the_official_ones_are(tmp_path):
    file = arrays(tmp_path, "train.npz", images=np.zeros((200, 32, 32, 3), np.uint8), labels=np.zeros(200, int),
                  index=np.arange(200))  # fmt: skip
    train, validation = (cifar("nowhere", TEN, split=split, files=file) for split in ("train", "validation"))
    assert sorted([*train.ids.tolist(), *validation.ids.tolist()]) == list(range(200))
    assert set(validation.ids.tolist()) == set(range(200)) & set(cifar_module.indices("validation").tolist())


def test_cifar_in_class_folders_is_labelled_by_name_and_has_no_official_order(tmp_path):
    for name in TEN:
        (tmp_path / "test" / name).mkdir(parents=True)
        for number in range(2):
            picture(10 * TEN.index(name) + number).save(tmp_path / "test" / name / f"{number:04}.png")
    data = cifar("nowhere", TEN, files=str(tmp_path))
    assert len(set(data.labels[:10].tolist())) > 3, "the first images are not of one class"
    for image, label, number in zip(data.images, data.labels, data.ids, strict=True):
        assert value_of(image) // 10 == int(label)
        assert int(number) - TEST_IDS == 2 * int(label) + value_of(image) % 10
    subset = {"name": "few", "seeds": [0], "each": 512, "sha256": resolved(["dataset=cifar10", "subset=cifar10/coup_512"]).dataset["subset"]["sha256"]}  # fmt: skip
    assert "do not say which official image" in refusal(lambda: cifar("n", TEN, files=str(tmp_path), subset=subset))
    (tmp_path / "test" / "truck").rename(tmp_path / "test" / "lorry")
    assert "the class lorry is none of dataset.classes" in refusal(lambda: cifar("n", TEN, files=str(tmp_path)))


def test_cifars_files_that_are_something_else_are_one_line(tmp_path):
    def said(files: Path) -> str:
        return refusal(lambda: cifar("nowhere", TEN, files=str(files)))

    assert "does not exist" in said(tmp_path / "nowhere")
    assert "holds no test*.parquet" in said(tmp_path)
    assert "has the columns picture, label and none called img or image" in said(
        hub_file(tmp_path, 3, column="picture")
    )
    assert "3 of 10000 images and no index" in said(hub_file(tmp_path, 3))
    assert "calls class 0 'automobile'" in said(hub_file(tmp_path, 3, names=(TEN[1], TEN[0], *TEN[2:])))
    assert "index 10000 is not in [0, 9999]" in said(hub_file(tmp_path, 2, index=[0, 10_000]))
    assert "index 4 stands there twice" in said(hub_file(tmp_path, 2, index=[4, 4]))
    bad = hub_file(tmp_path, 2, index=[0, 1])
    table = parquet.read_table(bad).set_column(0, "img", pa.array([{"bytes": b"x", "path": None}] * 2))
    parquet.write_table(table, bad)
    assert "row 0 cannot be read" in said(bad)
    bad.write_bytes(b"<html>")
    assert "is no parquet file" in said(bad)
    bad.unlink()
    assert "(3, 8, 8) and not (3, 32, 32)" in said(
        Path(arrays(tmp_path, "test.npz", images=np.zeros((3, 8, 8, 3), np.uint8)))
    )


# Cells


def test_an_npz_of_ones_own_is_measured_by_one_command_without_roles(digit_arrays, tmp_path):
    words = [f"dataset.file={digit_arrays}", "dataset=npz", "classifier=digits/standard", "purifier=none", "attack=pgd"]
    done = called("run", *words, *SMALL, f"outputs={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    found = summary(tmp_path / "out")
    assert found["undefended_natural"] > 80
    assert found["classes"][:2] == ["zero", "one"]
    assert found["threat_name"] == "npz/linf"
    assert found["eps"] == "8/255"


def test_a_folder_of_ones_own_is_measured_with_another_data_sets_prior(digit_arrays, tmp_path):
    held = np.load(digit_arrays)
    for row, (image, label) in enumerate(zip(held["images"], held["labels"], strict=True)):
        folder = tmp_path / "own" / f"{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{row}.png")
    words = ["dataset=images", f"dataset.root={tmp_path}/own", "dataset.classes=['0','1','2','3','4','5','6','7','8','9']",
             "classifier=digits/standard", "purifier=coup", "prior=digits/pixel", "attack=full"]  # fmt: skip
    done = called("run", *words, *SMALL, f"outputs={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "out")["undefended_natural"] > 80
    assert only_record(tmp_path / "out").is_dir()


def test_other_files_are_another_record_and_the_official_batches_keep_theirs(tmp_path):
    words = ["dataset=cifar10", "classifier=digits/standard", "purifier=none", "attack=pgd"]
    first = identified([*words, f"dataset.files={arrays(tmp_path)}"])["cell"]
    second = identified([*words, f"dataset.files={arrays(tmp_path, labels=np.zeros(3, int))}"])["cell"]
    moved = identified([*words, f"dataset.files={arrays(tmp_path, 'b.npz', labels=np.zeros(3, int))}"])["cell"]
    official = identified(words)["cell"]
    assert len({first, second, official}) == 3
    assert second == moved, "a path does not identify, the content does"
    cell = resolved(words)
    assert cell.dataset["files"] is None


ROLES = [
    (["purifier=none", "attack=pgd"], "classifier: dataset=npz brings none (no npz/standard): choose classifier=callable"),
    (["classifier=digits/standard"], "purifier=lgap needs a prior, and dataset=npz brings none (no npz/latent)"),
    (["classifier=digits/standard", "purifier=coup", "attack=full"], "purifier=coup needs a prior"),
    (["classifier=digits/standard", "prior=digits/latent"], "purifier=lgap needs a captioner, and dataset=npz brings none"),
    (["classifier=digits/standard", "purifier=inpaint", "attack=full", "prior=scenes/inpaint"], "needs a detector"),
    (["classifier=digits/standard", "purifier=none", "attack=pgd", "threat=npz/l3"], "Could not find 'threat/npz/l3'"),
    (["classifier=digits/standrad", "purifier=none", "attack=pgd"], "Could not find 'classifier/digits/standrad'"),
    (["classifier=digits/standard", "purifier=none", "attack=pgd", "detector=typo"], "Could not find 'detector/typo'"),
    (["classifier=digits/standard", "purifier=none", "attack=pgd", "classifier@other=typo"], "Could not find 'classifier/typo'"),
]  # fmt: skip


@pytest.mark.parametrize("words, said", ROLES)
def test_a_role_that_is_missing_is_named_where_it_is_used_and_a_misspelt_one_always(torchless, tmp_path, words, said):
    refused = torchless.refusal("run", "dataset=npz", f"dataset.file={arrays(tmp_path)}", *words)
    assert said in refused


def test_fewer_images_than_asked_for_is_one_line_and_nothing_is_written(digit_arrays, tmp_path):
    words = [f"dataset.file={digit_arrays}", "dataset=npz", "classifier=digits/standard", "purifier=none", "attack=pgd"]
    done = called("run", *words, "n=17", f"outputs={tmp_path}/out")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "n=17 is more than dataset=npz has: 16 images" in done.stderr


# Real images


@real
def test_lossless_cifar_is_read_with_its_official_index():
    data = cifar("nowhere", TEN, files=str(DATA / "cifar10_lossless"))
    assert len(data) == 512
    assert data.ids.tolist() == list(range(TEST_IDS, TEST_IDS + 512))
    labels = json.loads((DATA / "cifar10_lossless" / "test_labels_all_10000.json").read_text())
    assert data.labels.tolist() == list(labels)[:512]


@real
def test_photographs_are_read_flat_by_their_own_label_file():
    data = images(str(DATA / "imagenet_sample"), crop=224)
    assert len(data) >= 500
    assert data.images[:4].shape == (4, 3, 224, 224)
