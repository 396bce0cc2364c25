"""Weights that are missing, damaged, changed or not finite are refused in one line that says which and how to mend it."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lgap_bench.captioner import blip as blip_module
from lgap_bench.classifier import wide_resnet
from lgap_bench.prior import latent
from lgap_bench.runtime import weights

TENSORS = {"head.bias": torch.arange(4.0), "head.weight": torch.ones(3, 4)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of weights outside the package."""
    (tmp_path / "mine").mkdir()
    save_file(TENSORS, tmp_path / "mine" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "mine" / "config.json").write_text("{}")
    return tmp_path / "mine"


@pytest.fixture
def embedded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder as an embedded one, with a manifest."""
    monkeypatch.setattr(weights, "ZOO", tmp_path)
    monkeypatch.setattr(weights, "MANIFEST", tmp_path / "SHA256SUMS")
    file = folder / "model.safetensors"
    weights.MANIFEST.write_text(f"{weights.sha256(file)}  mine/model.safetensors\n")
    return folder


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match="weights=") as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def header(text: str | bytes) -> bytes:
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text)) + text


DAMAGE = {
    "cut off by one byte": (lambda b: b[:-1], "bytes instead of"),
    "cut off in the header": (lambda b: b[:20], "its header is cut off or not safetensors"),
    "longer than it should be": (lambda b: b + b"\0", "bytes instead of"),
    "empty": (lambda b: b"", "0 bytes long"),
    "four bytes": (lambda b: b[:4], "4 bytes long"),
    "a web page": (lambda b: b"<!DOCTYPE html><html>not found</html>", "an HTML or XML page, not a checkpoint"),
    "a Git LFS pointer": (lambda b: b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "header of garbage": (lambda b: header(b"\xff\xfe{}"), "its header is not safetensors"),
    "header of a list": (lambda b: header("[1, 2]"), "its header is not safetensors"),
    "header without offsets": (lambda b: header('{"a": {"dtype": "F32"}}'), "its header is not safetensors"),
    "header with half an offset": (lambda b: header('{"a": {"data_offsets": [0]}}'), "its header is not safetensors"),
    "header with words for offsets": (
        lambda b: header('{"a": {"data_offsets": [0, "x"]}}'),
        "its header is not safetensors",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named_with_its_damage(kind, folder):
    damaging, said = DAMAGE[kind]
    file = folder / "model.safetensors"
    file.write_bytes(damaging(file.read_bytes()))
    message = refusal(lambda: weights.inspect(str(folder)))
    assert str(file) in message
    assert said in message
    assert message.endswith("copy or download it again")


def test_whole_files_pass(folder, embedded):
    weights.inspect(str(folder))
    weights.inspect("embedded:mine")
    assert weights.locate("embedded:mine") == folder


def test_a_file_in_a_subfolder_is_looked_at_too(folder):
    (folder / "unet").mkdir()
    (folder / "unet" / "model.safetensors").write_bytes(b"")
    assert "unet/model.safetensors is damaged" in refusal(lambda: weights.inspect(str(folder)))


@pytest.mark.parametrize("name", ["nowhere", "mine/config.json", "empty"])
def test_a_folder_without_weights_is_named_with_the_mend(name, folder):
    (folder.parent / "empty").mkdir()
    path = folder.parent / name
    for call in (weights.locate, weights.inspect, weights.fingerprint, latent.load):
        message = refusal(lambda call=call: call(str(path)))
        assert f"no *.safetensors in {path}: give a folder written by save_pretrained" in message


def test_missing_embedded_weights_say_how_to_get_them(embedded):
    message = refusal(lambda: weights.inspect("embedded:digits/none"))
    assert message.startswith("weights=embedded:digits/none: no *.safetensors in ")
    assert message.endswith("reinstall lgap-bench or run `make zoo`")


def test_an_embedded_file_that_is_not_the_manifests_is_refused(embedded):
    save_file({**TENSORS, "head.bias": torch.ones(4)}, embedded / "model.safetensors", metadata={"format": "pt"})
    message = refusal(lambda: weights.inspect("embedded:mine"))
    assert f"{embedded / 'model.safetensors'} is damaged (its SHA-256 is not the one in the manifest)" in message
    assert message.endswith("reinstall lgap-bench or run `make zoo`")
    weights.inspect(str(embedded))  # by its path it is the user's own, and whole


def test_an_embedded_file_that_the_manifest_lacks_is_refused(embedded):
    save_file(TENSORS, embedded / "more.safetensors")
    assert "more.safetensors is damaged" in refusal(lambda: weights.inspect("embedded:mine"))


def test_while_the_zoo_is_trained_there_is_no_manifest_to_obey(embedded):
    weights.MANIFEST.unlink()
    save_file({**TENSORS, "head.bias": torch.ones(4)}, embedded / "model.safetensors")
    weights.inspect("embedded:mine")


def test_the_fingerprint_is_of_the_content_not_of_the_place(folder, tmp_path):
    first = weights.fingerprint(str(folder))
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert weights.fingerprint(str(tmp_path / "elsewhere")) == first
    (folder / "README.md").write_text("a model card changes nothing")
    assert weights.fingerprint(str(folder)) == first
    (folder / "config.json").write_text('{"a": 1}')
    changed = weights.fingerprint(str(folder))
    assert changed != first
    save_file({**TENSORS, "head.bias": torch.ones(4)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert weights.fingerprint(str(folder)) not in (first, changed)


def spoil(file: Path, value: float) -> str:
    """Put one bad number in the file's last tensor; returns that tensor's name."""
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, file, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize(
    "part, file", [("vae", "diffusion_pytorch_model"), ("unet", "diffusion_pytorch_model"), ("text_encoder", "model")]
)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_latent_prior_with_nan_names_the_tensor(part, file, value, latent_folder, tmp_path):
    shutil.copytree(latent_folder, tmp_path / "bad")
    name = spoil(tmp_path / "bad" / part / f"{file}.safetensors", value)
    message = refusal(lambda: latent.load(str(tmp_path / "bad")))
    assert message == f"weights={tmp_path / 'bad'}: {part}.{name} holds NaN or infinity: train or download them again"


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "tokenizer", "scheduler"])
def test_a_latent_prior_without_one_of_its_parts_names_it(part, latent_folder, tmp_path):
    shutil.copytree(latent_folder, tmp_path / "bad")
    shutil.rmtree(tmp_path / "bad" / part)
    for call in (weights.inspect, latent.load):
        message = refusal(lambda call=call: call(str(tmp_path / "bad")))
        assert str(tmp_path / "bad" / part) in message


def test_a_classifier_with_nan_names_the_tensor_and_a_whole_one_answers_as_it_did(tmp_path, images):
    torch.manual_seed(0)
    model = wide_resnet.WideResNet(10, 1).eval()
    model.save_pretrained(tmp_path, config={"depth": 10, "widen": 1})
    assert torch.equal(wide_resnet.load(str(tmp_path))(images(2)), model(images(2)))
    name = spoil(tmp_path / "model.safetensors", float("nan"))
    assert f"{name} holds NaN" in refusal(lambda: wide_resnet.load(str(tmp_path)))


def test_a_captioner_with_nan_names_the_tensor_and_a_whole_one_answers_as_it_did(make_blip, tmp_path, images):
    from transformers import BlipImageProcessor, BlipProcessor

    made = make_blip(max_length=4)
    made.model.save_pretrained(tmp_path)
    pixels = BlipImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3)
    BlipProcessor(pixels, made.tokenizer).save_pretrained(tmp_path)
    assert blip_module.load(str(tmp_path), max_length=4)(images(3, 32)) == made(images(3, 32))
    name = spoil(tmp_path / "model.safetensors", float("nan"))
    assert f"{name} holds NaN" in refusal(lambda: blip_module.load(str(tmp_path)))


def test_the_manifest_reads_what_sha256sum_writes(embedded):
    assert weights.manifest() == {"mine/model.safetensors": weights.sha256(embedded / "model.safetensors")}
    assert json.loads((embedded / "config.json").read_text()) == {}
