"""What is read is what is there: images, class lists, tokenizers, captions and checkpoints, or one line that says why not."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lgap_bench.captioner import blip as blip_module
from lgap_bench.captioner.text import Given
from lgap_bench.classifier import diffpure, robustbench, torchvision
from lgap_bench.dataset.imagenet import imagenet
from lgap_bench.dataset.images import read_rgb
from lgap_bench.metric.captions import Captions
from lgap_bench.prior import latent
from lgap_bench.runtime import checkpoint
from lgap_bench.runtime.text import read_lines

SAMPLE = Path(
    os.environ.get("LGAP_BENCH_IMAGENET_SAMPLE", "imagenet_sample")
)  # real photographs, where they are at hand


def refusal(call) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011 the message is looked at by the caller
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def saved(folder: Path, image: Image.Image, name: str = "a.png", **how) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name, **how)
    return folder / name


# Images


def test_grey_of_16_bits_is_scaled_by_its_own_maximum_and_not_cut_to_white(tmp_path):
    values = np.array([[0, 257, 32_896, 65_535]], dtype=np.uint16)
    read = np.asarray(read_rgb(saved(tmp_path, Image.fromarray(values))))
    assert read[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (read == read[..., :1]).all()


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA"])
def test_kinds_that_hold_the_same_picture_are_read_as_the_same(tmp_path, mode):
    picture = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8))
    read = np.asarray(read_rgb(saved(tmp_path, picture.convert(mode))))
    assert (read == np.asarray(picture.convert("RGB"))).all()


def test_a_palette_is_looked_up_and_cmyk_converted(tmp_path):
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert np.asarray(read_rgb(saved(tmp_path, red.convert("P", palette=Image.Palette.ADAPTIVE))))[0, 0].tolist() == [
        255,
        0,
        0,
    ]
    cmyk = np.asarray(read_rgb(saved(tmp_path, red.convert("CMYK"), "b.jpg", quality=100)))[4, 4]
    assert np.abs(cmyk.astype(int) - [255, 0, 0]).max() <= 2


def test_transparent_images_are_refused(tmp_path):
    shown = Image.new("RGBA", (4, 4), (10, 20, 30, 255))
    shown.putpixel((1, 1), (10, 20, 30, 0))
    assert "is transparent in places: flatten it" in refusal(lambda: read_rgb(saved(tmp_path, shown)))
    palette = Image.new("P", (4, 4), 0)
    assert "is transparent" in refusal(lambda: read_rgb(saved(tmp_path, palette, "b.png", transparency=0)))


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    image, exif = Image.new("RGB", (6, 4)), Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert read_rgb(saved(tmp_path, image, "a.jpg", exif=exif)).size == (4, 6)


@pytest.mark.parametrize("name, kind", [("a.png", "PNG"), ("a.jpg", "JPEG")])
def test_a_cut_off_image_names_its_file_and_the_mend(tmp_path, name, kind):
    pixels = np.random.RandomState(0).randint(0, 256, (40, 40, 3), dtype=np.uint8)
    file = saved(tmp_path, Image.fromarray(pixels), name)
    file.write_bytes(file.read_bytes()[:-500])
    message = refusal(lambda: read_rgb(file))
    assert str(file) in message
    assert "delete it or download it again" in message


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_names_its_file(tmp_path, content):
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    assert f"image {file} cannot be read" in refusal(lambda: read_rgb(file))


# A folder per class


@pytest.fixture
def folders(tmp_path):
    """Two classes of three images, and what systems leave beside them."""
    root = tmp_path / "val"
    for place, name in enumerate(("n01", "n02")):
        for number in range(3):
            saved(root / name, Image.new("RGB", (60, 50), (100 * place, 10 * number, 7)), f"{number}.png")
    (tmp_path / "classes.txt").write_text("tench\ngoldfish\n")
    return root


def load(root: Path, **more):
    return imagenet(
        str(root), **{"file": str(root.parent / "classes.txt"), "subset": 6, "resize": 40, "crop": 32, **more}
    )


def test_what_systems_leave_beside_images_changes_nothing(folders):
    before = load(folders)
    for name in (".DS_Store", "Thumbs.db", "n01/._0.png", "n01/.hidden.png", "n02/Thumbs.db", "n02/notes.txt"):
        (folders / name).write_bytes(b"no image")
    for name in (".git", "__MACOSX"):
        saved(folders / name, Image.new("RGB", (4, 4)))
    after = load(folders)
    assert after.images.files == before.images.files
    assert torch.equal(after.ids, before.ids)
    assert torch.equal(after.images[:], before.images[:])


def test_an_empty_class_folder_is_refused_by_name(folders):
    (folders / "n015").mkdir()
    (folders / "n015" / "Thumbs.db").write_bytes(b"no image")
    assert "the class folder n015 holds no image" in refusal(lambda: load(folders))


def test_a_root_that_is_not_there_is_named(tmp_path):
    assert f"dataset.root={tmp_path / 'nowhere'} is no folder" in refusal(lambda: load(tmp_path / "nowhere"))


def test_only_the_rows_that_are_asked_for_are_read(folders):
    data = load(folders)
    whole = data.images[:]
    for file in data.images.files[2:]:
        file.write_bytes(b"damaged")
    assert torch.equal(data.images[:2], whole[:2])
    assert torch.equal(data.images[torch.tensor([1, 0])], whole[[1, 0]])
    assert len(data.images) == 6
    assert str(data.images.files[2]) in refusal(lambda: data.images[:3])


@pytest.mark.parametrize("text", ["tench\ngoldfish", "\ufefftench\r\ngoldfish\r\n", "tench \n goldfish\n\n\n"])
def test_class_lists_of_any_editor_are_the_same(folders, text):
    (folders.parent / "classes.txt").write_bytes(text.encode())
    assert load(folders).classes == ("tench", "goldfish")


def test_a_class_list_in_another_encoding_or_with_a_gap_is_refused(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_bytes("tench\ncafé\n".encode("latin-1"))
    assert f"dataset.file={file} is not UTF-8 (line 2): save it as UTF-8" == refusal(
        lambda: read_lines(str(file), "dataset.file")
    )
    file.write_bytes("tench\ngoldfish\n".encode("utf-16"))
    assert "is not UTF-8 (line 1)" in refusal(lambda: read_lines(str(file), "dataset.file"))
    file.write_text("tench\n\ngoldfish\n")
    assert "line 2 is blank" in refusal(lambda: read_lines(str(file), "dataset.file"))


def test_a_class_that_stands_twice_is_refused(folders):
    (folders.parent / "classes.txt").write_text("crane\ncrane\n")
    assert "crane stands there twice" in refusal(lambda: load(folders))


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs the folder of photographs that LGAP_BENCH_IMAGENET_SAMPLE names")
def test_real_photographs_are_read_as_torchvision_reads_them():
    from torchvision.transforms.functional import to_tensor

    files = sorted(f for f in SAMPLE.rglob("*") if f.suffix.lower() in (".jpeg", ".jpg"))[:40]
    assert files
    for file in files:
        assert torch.equal(to_tensor(read_rgb(file)), to_tensor(Image.open(file).convert("RGB"))), file


# Tokenizers and captions


@pytest.fixture
def prior_folder(latent_folder, tmp_path):
    return Path(shutil.copytree(latent_folder, tmp_path / "latent"))


@pytest.fixture
def blip_folder(make_blip, tmp_path):
    from transformers import BlipImageProcessor, BlipProcessor

    made, folder = make_blip(max_length=4), tmp_path / "blip"
    made.model.save_pretrained(folder)
    pixels = BlipImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3)
    BlipProcessor(pixels, made.tokenizer).save_pretrained(folder)
    return folder


def test_a_prior_without_its_vocabulary_is_refused(prior_folder):
    for file in (prior_folder / "tokenizer").iterdir():
        if file.name != "tokenizer_config.json":
            file.unlink()
    message = refusal(lambda: latent.load(str(prior_folder)))
    assert "its tokenizer knows 2 words and its text model 115" in message
    assert "copy tokenizer.json" in message


def test_a_captioner_without_its_vocabulary_is_refused(blip_folder):
    for name in ("tokenizer.json", "vocab.txt"):
        (blip_folder / name).unlink(missing_ok=True)
    assert "its tokenizer knows 6 words and its text model 25" in refusal(lambda: blip_module.load(str(blip_folder)))


def test_a_tokenizer_that_names_no_length_takes_the_text_encoders(prior_folder, prior):
    file = prior_folder / "tokenizer" / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["model_max_length"]
    file.write_text(json.dumps(config))
    caption = ["a photo of a handwritten seven in thin strokes"]
    assert torch.equal(latent.load(str(prior_folder)).embed(caption), prior.embed(caption))


@pytest.mark.parametrize("size", [{"shortest_edge": 32}, {"height": 32, "width": 32}])
def test_any_way_to_write_the_image_size_is_the_same_captioner(blip_folder, images, size):
    before = blip_module.load(str(blip_folder), max_length=4)(images(3, 16))
    file = blip_folder / "processor_config.json"
    config = json.loads(file.read_text())
    config["image_processor"]["size"] = size
    file.write_text(json.dumps(config))
    assert blip_module.load(str(blip_folder), max_length=4)(images(3, 16)) == before


def test_a_plain_number_is_an_image_size_and_a_longest_edge_is_none():
    assert blip_module._size(384) == (384, 384)
    assert "is no size" in refusal(lambda: blip_module._size({"longest_edge": 384}))


def test_captions_that_the_text_encoder_cuts_are_counted(prior):
    short, long = "a photo of a handwritten seven", " ".join(["a photo of a handwritten seven"] * 9)
    assert torch.equal(prior.embed([long]), prior.embed([f"{long} {long}"])), "what is cut off changes nothing"
    assert prior.cut([short, long]) == [False, True]
    measure = Captions(("seven", "eight"), {}, None, cut=prior.cut)
    x, observed = torch.zeros(2, 3, 8, 8), {"clean": [short, short], "attacked": [short, long]}
    columns = measure.columns(x, [0, 0], observed, {})
    assert columns["clean_caption_cut"].tolist() == [False, False]
    assert columns["attacked_caption_cut"].tolist() == [False, True]
    summary = measure.summary([columns], np.ones(2, bool))
    assert (summary["clean_caption_cut"], summary["attacked_caption_cut"]) == (0.0, 50.0)


@pytest.mark.parametrize(
    "content, told",
    [
        ('{"7": 3}', "the caption of sample 7 is no sentence (a number)"),
        ('{"7": null}', "the caption of sample 7 is no sentence (null)"),
        ('{"7": ["a", "b"]}', "the caption of sample 7 is no sentence (a list)"),
        ('{"7": {"text": "a"}}', "the caption of sample 7 is no sentence (an object)"),
        ('{"7": true}', "the caption of sample 7 is no sentence (true or false)"),
        ('{"seven": "a"}', "'seven' is no sample id"),
        ('{"7": "a", "7": "b"}', "sample 7 has two captions"),
        ('["a", "b"]', "is no JSON object of sample id -> caption"),
        ("a photo", "is no JSON object of sample id -> caption"),
        ("", "is no JSON object of sample id -> caption"),
    ],
)
def test_a_caption_file_holds_sentences_only(tmp_path, content, told):
    file = tmp_path / "captions.json"
    file.write_text(content)
    message = refusal(lambda: Given(str(file)))
    assert message.startswith(f"captioner.file={file}")
    assert told in message


def test_an_empty_sentence_is_one_and_a_byte_order_mark_is_none(tmp_path):
    file = tmp_path / "captions.json"
    file.write_bytes('\ufeff{"7": "", "8": "a café"}'.encode())
    assert Given(str(file)).captions == {7: "", 8: "a café"}


# Checkpoints


LOADERS = [
    ("resnet50.pth", lambda file: torchvision.load(file)),
    ("wrn.pt", lambda file: diffpure.load(file, depth=10, widen=1)),
    ("cifar10/Linf/Wong2020Fast.pt", lambda file: robustbench.load("Wong2020Fast", "cifar10", file)),
]
CONTENTS = [
    (b"", "is empty"),
    (b"<!DOCTYPE html><html>too many requests</html>", "is an HTML or XML page"),
    (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    (b'{"a": 1}', "is a JSON file"),
    (b"PK\x03\x04 and no more", "is cut off"),
    (torch.zeros(3, 3), "holds a bare tensor of shape (3, 3)"),
    ([torch.zeros(3)], "holds a list of 1 entries"),
    ({"epoch": 3, "best": 0.5}, "epoch, best"),
]


@pytest.mark.parametrize("name, loader", LOADERS, ids=[name for name, _ in LOADERS])
@pytest.mark.parametrize("content, told", CONTENTS, ids=[told for _, told in CONTENTS])
def test_what_is_no_checkpoint_is_named_for_what_it_is(tmp_path, name, loader, content, told):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    message = refusal(lambda: loader(str(file)))
    assert message.startswith(f"classifier.file={file}")
    assert told in message


def test_a_checkpoint_that_would_run_code_is_not_read(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"state_dict": Runs()}, tmp_path / "a.pt")
    assert "asks for code to be run" in refusal(lambda: checkpoint.read(str(tmp_path / "a.pt")))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("best", [np.float64(0.9), np.float32(0.9), np.int64(3), np.bool_(True)])
@pytest.mark.parametrize("numpy_1", [False, True])
def test_a_numpy_number_beside_the_state_dictionary_is_read_over(tmp_path, best, numpy_1):
    model, file = diffpure.skeleton(10, 1), tmp_path / "a.pt"
    torch.save({"state_dict": model.model.state_dict(), "best": best}, file, _use_new_zipfile_serialization=False)
    if numpy_1:
        file.write_bytes(file.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(diffpure.load(str(file), 10, 1)(x), model.eval()(x))


def test_tensors_of_another_shape_are_named(tmp_path):
    tensors = diffpure.skeleton(10, 1).model.state_dict()
    torch.save({**tensors, "fc.bias": torch.zeros(100)}, tmp_path / "a.pt")
    message = refusal(lambda: diffpure.load(str(tmp_path / "a.pt"), 10, 1))
    assert "fc.bias of shape (100,) instead of (10,)" in message
