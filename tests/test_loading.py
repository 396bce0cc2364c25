"""Weights come into memory once, are read for their digest once, and are the file's to the last bit."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from lgap_bench.prior.latent import load
from lgap_bench.runtime import digest, frugal
from lgap_bench.runtime.pretrained import pretrained, require_finite
from scripts.bench import models

PEAK = """
import resource, sys
import torch
import diffusers.models.autoencoders.autoencoder_kl, diffusers.models.unets.unet_2d_condition
from transformers import CLIPTextModel, CLIPTokenizer
from lgap_bench.prior.latent import load
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
torch.nn.Conv2d(8, 8, 3)(torch.zeros(1, 8, 8, 8))
load(sys.argv[1])  # a small one, for what is imported on the way
before = peak()
prior = load(sys.argv[2]).to(memory_format=torch.channels_last)
weights = sum(each.numel() * each.element_size() for each in prior.parameters())
print(weights, (peak() - before) / weights)
"""


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent")
    models.write(folder, models.narrow(16))
    return folder / "latent"


@pytest.mark.slow
def test_loading_takes_no_second_copy_of_the_weights(tmp_path, latent):
    models.write(tmp_path, models.narrow(192))
    command = [sys.executable, "-c", PEAK, str(latent), str(tmp_path / "latent")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    weights, share = done.stdout.split()
    assert int(weights) > 400e6, "of fewer the allocator's own pages would be seen"
    assert float(share) <= 1.15


def test_what_is_read_is_what_diffusers_itself_reads(latent):
    own = pretrained(UNet2DConditionModel, latent / "unet", "weights")
    theirs = UNet2DConditionModel.from_pretrained(str(latent / "unet"), use_safetensors=True)
    assert type(own) is type(theirs)
    assert own.config == theirs.config
    assert not own.training
    assert own.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in own.state_dict().items())
    assert not [name for name, value in (*own.named_parameters(), *own.named_buffers()) if value.device.type != "cpu"]


def test_a_replaced_file_does_not_change_a_model_in_use(tmp_path, latent):
    (tmp_path / "config.json").write_bytes((latent / "unet" / "config.json").read_bytes())
    file = tmp_path / frugal.FILE
    file.write_bytes((latent / "unet" / frugal.FILE).read_bytes())
    model = pretrained(UNet2DConditionModel, tmp_path, "weights")
    before = model.conv_in.weight.clone()
    with file.open("r+b") as stream:  # in place, as rsync --inplace does
        stream.seek(-(file.stat().st_size // 2), os.SEEK_END)
        stream.write(b"\0" * (file.stat().st_size // 2))
    assert torch.equal(model.conv_in.weight, before)
    assert model.conv_out.weight.abs().sum() > 0


@pytest.mark.parametrize("change, said", [
    (lambda held: held.pop("conv_in.weight"), "lacks 1 tensors of UNet2DConditionModel, the first is conv_in.weight"),
    (lambda held: held.update({"conv_in.weight": torch.zeros(2, 2)}), "is no UNet2DConditionModel"),
])  # fmt: skip
def test_a_file_that_is_not_this_models_is_refused_by_name(tmp_path, latent, change, said):
    (tmp_path / "config.json").write_bytes((latent / "unet" / "config.json").read_bytes())
    held = load_file(latent / "unet" / frugal.FILE)
    change(held)
    save_file(held, tmp_path / frugal.FILE)
    with pytest.raises(ValueError, match=said) as caught:
        pretrained(UNet2DConditionModel, tmp_path, "weights")
    assert "weights=weights: " in str(caught.value)


def test_halves_on_disk_are_whole_numbers_in_memory(tmp_path, latent):
    (tmp_path / "config.json").write_bytes((latent / "unet" / "config.json").read_bytes())
    held = {name: value.half() for name, value in load_file(latent / "unet" / frugal.FILE).items()}
    save_file(held, tmp_path / frugal.FILE)
    model = pretrained(UNet2DConditionModel, tmp_path, "weights")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert all(torch.equal(value, held[name].float()) for name, value in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_number_that_is_none_is_found_and_named(value, dtype):
    model = torch.nn.Linear(8, 8).to(dtype)
    require_finite(model, "w")
    with torch.no_grad():
        model.weight[3, 2] = value
    with pytest.raises(ValueError, match=r"weights=w: weight holds NaN or infinity"):
        require_finite(model, "w")
    require_finite(torch.nn.Embedding(0, 4), "w")


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file large enough for a note, changed a minute ago."""
    monkeypatch.setenv("LGAP_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "LARGE", 100)
    digest._sha256.cache_clear()
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"a" * 200)
    os.utime(file, (time.time() - 60,) * 2)
    return file


def again(file):
    """As another process would find it."""
    digest._sha256.cache_clear()
    return digest.sha256(file)


def test_a_large_file_is_read_once_and_again_when_its_size_or_time_changes(large, monkeypatch):
    first = again(large)
    stamp = large.stat().st_mtime_ns
    large.write_bytes(b"b" * 200)
    os.utime(large, ns=(stamp, stamp))  # a change that nothing shows: only reading would
    assert again(large) == first
    monkeypatch.setenv("LGAP_BENCH_REHASH", "1")
    second = again(large)
    assert second != first, "on demand the content is looked at"
    monkeypatch.delenv("LGAP_BENCH_REHASH")
    assert again(large) == second
    large.write_bytes(b"c" * 200)
    assert again(large) not in (first, second)


def test_a_file_changed_just_now_is_not_trusted_to_stay(large, tmp_path):
    large.write_bytes(b"d" * 200)
    again(large)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", json.dumps({"weights.safetensors": [200]})])
def test_a_damaged_note_costs_time_alone(large, tmp_path, text):
    first = again(large)
    (note,) = (tmp_path / "cache" / "files").iterdir()
    note.write_text(text)
    assert again(large) == first
    assert json.loads(note.read_text())[large.name][2] == first


def test_a_cache_that_cannot_be_written_costs_time_alone(large, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert len(again(large)) == 64


def test_a_prior_of_the_miniature_loads_without_a_note(tmp_path, monkeypatch):
    monkeypatch.setenv("LGAP_BENCH_CACHE", str(tmp_path / "cache"))
    load("embedded:digits/latent")
    assert not (tmp_path / "cache").exists()
