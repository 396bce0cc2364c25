"""One key takes every form that a model is published in: variants, shards, `.bin`, links, a hub's name; and says what is wrong."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lgap_bench.cell.compose import resolved
from lgap_bench.prior import latent
from lgap_bench.runtime import hub, sources, weights

REPO = "CompVis/stable-diffusion-v1-4"
PART = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def folder(latent_folder: Path, tmp_path: Path) -> Path:
    """A latent diffusion model of its own, to be rearranged."""
    return Path(shutil.copytree(latent_folder, tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(cache: Path, repo: str, commit: str, source: Path, branch: str | None = None) -> Path:
    """A repository as the hub's own library lays it down: blobs, and a snapshot of links to them."""
    base = cache / f"models--{repo.replace('/', '--')}"
    snapshot = base / "snapshots" / commit
    for number, file in enumerate(weights.files(source)):
        blob, link = base / "blobs" / f"{number:040x}", snapshot / file.relative_to(source)
        for each in (blob, link):
            each.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if branch:
        (base / "refs").mkdir(exist_ok=True)
        (base / "refs" / branch).write_text(commit)
    return snapshot


def parts(prior: latent.LatentPrior) -> dict[str, torch.Tensor]:
    return prior.state_dict()


def assert_same(got: latent.LatentPrior, expected: dict[str, torch.Tensor], dtype: torch.dtype | None = None) -> None:
    for name, tensor in parts(got).items():
        want = expected[name] if dtype is None or not tensor.is_floating_point() else expected[name].to(dtype)
        assert torch.equal(tensor.float(), want.float()), name


def as_bin(folder: Path) -> None:
    for part, stem in PART.items():
        file = folder / part / f"{stem}.safetensors"
        stem = "pytorch_model" if stem == "model" else stem
        torch.save(load_file(file), folder / part / f"{stem}.bin")
        file.unlink()


def as_half(folder: Path) -> None:
    for part, stem in PART.items():
        file = folder / part / f"{stem}.safetensors"
        half = {
            name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(file).items()
        }
        save_file(half, folder / part / f"{stem}.fp16.safetensors", metadata={"format": "pt"})
        file.unlink()


def as_shards(folder: Path) -> None:
    for part, stem in PART.items():
        file = folder / part / f"{stem}.safetensors"
        tensors = load_file(file)
        names = sorted(tensors)
        halves = [names[: len(names) // 2], names[len(names) // 2 :]]
        where = {}
        for number, half in enumerate(halves, 1):
            shard = f"{stem}-{number:05d}-of-00002.safetensors"
            save_file({name: tensors[name] for name in half}, folder / part / shard, metadata={"format": "pt"})
            where |= dict.fromkeys(half, shard)
        index = {"metadata": {"total_size": file.stat().st_size}, "weight_map": where}
        (folder / part / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
        file.unlink()


@pytest.mark.parametrize("arrange, dtype", [(as_bin, None), (as_half, torch.float16), (as_shards, None)])
def test_bin_half_and_sharded_folders_hold_the_same_model(arrange, dtype, folder):
    expected = parts(latent.load(str(folder)))
    before = weights.fingerprint(str(folder))
    arrange(folder)
    weights.inspect(str(folder))
    assert_same(latent.load(str(folder)), expected, dtype)
    assert weights.fingerprint(str(folder)) != before, "other files, another identity"
    assert weights.size(str(folder)) > 0


def test_a_bin_that_asks_for_code_is_refused_and_runs_nothing(folder, tmp_path):
    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    as_bin(folder)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"conv_in.weight": Payload()}))
    with pytest.raises(ValueError, match="asks for code to be run") as error:
        latent.load(str(folder))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content, said", [(b"<html>quota</html>", "HTML"), (b"", "0 bytes"), (b"PK\3\4 cut", "cut off")]
)
def test_a_bin_that_is_none_is_named_before_anything_is_loaded(content, said, folder):
    as_bin(folder)
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=f"vae/diffusion_pytorch_model.bin is damaged .*{said}"):
        weights.inspect(str(folder))


def test_a_folder_behind_a_link_counts_for_the_identity(folder, tmp_path):
    whole = weights.fingerprint(str(folder))
    shutil.move(folder / "unet", tmp_path / "elsewhere")
    (folder / "unet").symlink_to(tmp_path / "elsewhere")
    assert weights.fingerprint(str(folder)) == whole
    (tmp_path / "elsewhere" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no \*\.safetensors in .*unet"):
        weights.locate(str(folder), weights.LATENT_PARTS)


def test_a_name_of_the_hub_is_its_cached_snapshot_at_the_pinned_commit(cache, latent_folder):
    pinned = sources.revision(REPO)
    snapshot = cached(cache, REPO, pinned, latent_folder)
    cached(cache, REPO, "f" * 40, latent_folder, branch="main")
    assert weights.locate(REPO) == snapshot
    assert weights.locate(f"{REPO}@main").name == "f" * 40
    assert weights.fingerprint(REPO) == weights.fingerprint(str(latent_folder)), "the same content, the same identity"
    assert_same(latent.load(REPO), parts(latent.load(str(latent_folder))))


def test_a_missing_name_says_where_it_was_looked_for_and_what_fetches_it(cache):
    for name, revision in ((REPO, sources.revision(REPO)), ("some/body", "main"), ("some/body@v2", "v2")):
        with pytest.raises(ValueError, match="not there") as error:
            weights.inspect(name)
        assert str(error.value).endswith(f"lgap-bench fetch {name.partition('@')[0] if name == REPO else name}")
        assert f"revision {revision} in {cache}" in str(error.value)


def test_a_blob_that_is_gone_is_named(cache, latent_folder):
    snapshot = cached(cache, REPO, sources.revision(REPO), latent_folder)
    file = snapshot / "unet" / "diffusion_pytorch_model.safetensors"
    file.resolve().unlink()
    with pytest.raises(ValueError, match="a link to a file that is not there"):
        weights.inspect(REPO)


def test_a_path_is_never_taken_for_a_name_nor_a_name_for_a_path(cache, latent_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(latent_folder, tmp_path / "mine" / "model")
    assert weights.locate("mine/model") == Path("mine/model"), "no model of the hub"
    cached(cache, "mine/model", "a" * 40, latent_folder, branch="main")
    with pytest.raises(ValueError, match=r"a model of the hub and a path here: write \./mine/model"):
        weights.locate("mine/model")
    assert weights.locate("./mine/model") == Path("mine/model")
    shutil.copytree(latent_folder, tmp_path / REPO)
    with pytest.raises(ValueError, match="a model of the hub and a path here"):
        weights.locate(REPO)


@pytest.mark.parametrize(
    "text", ["/a/b", "./a/b", "~/a", "a", "a/b/c", "a/../b", "../b", "embedded:digits/blip", "a/", "a b/c"]
)
def test_what_is_no_name_of_the_hub(text):
    assert hub.parse(text) is None


def test_the_caches_place_is_the_librarys_own(tmp_path):
    code = "from lgap_bench.runtime import hub; print(hub.cache())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HF_HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(tmp_path / "hub")


def test_a_folder_of_the_old_name_below_checkpoints_keeps_working(tmp_path):
    (tmp_path / "stable-diffusion-v1-4").mkdir()
    words = ["experiment=lgap/table1/lgap", f"checkpoints={tmp_path}"]
    cell = resolved(words)
    assert cell.purifier["prior"]["weights"] == str(tmp_path / "stable-diffusion-v1-4")
    assert cell.purifier["captioner"]["weights"] == "Salesforce/blip-image-captioning-base"
    pixel = resolved(["experiment=coup/table1/coup_apgd", f"checkpoints={tmp_path}"]).purifier["prior"]["weights"]
    assert pixel == f"{tmp_path}/score_sde/checkpoint_8.pth"
    (tmp_path / "score_sde_cifar10").mkdir()
    pixel = resolved(["experiment=coup/table1/coup_apgd", f"checkpoints={tmp_path}"]).purifier["prior"]["weights"]
    assert pixel == str(tmp_path / "score_sde_cifar10")


def test_latent_diffusions_own_text_model_is_read_and_asked_as_its_pipeline_does(latent_folder, tmp_path):
    """`CompVis/ldm-text2im-large-256` in small: `bert` and `vqvae`, tensors in .bin as it has them."""
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
    from transformers import BertTokenizer

    folder = tmp_path / "ldm"
    shutil.copytree(latent_folder, folder)
    shutil.move(folder / "vae", folder / "vqvae")
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / part)
    words = {word: k for k, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog"])}
    BertTokenizer(vocab=words, model_max_length=77).save_pretrained(folder / "tokenizer")
    width = json.loads((folder / "unet" / "config.json").read_text())["cross_attention_dim"]
    torch.manual_seed(0)
    config = LDMBertConfig(len(words), 77, 2, 64, 2, 16, d_model=width)
    bert = LDMBertModel(config).eval()
    (folder / "bert").mkdir()
    config.save_pretrained(folder / "bert")
    torch.save(bert.state_dict(), folder / "bert" / "pytorch_model.bin")
    weights.inspect(str(folder))
    latent.examine(str(folder))
    prior = latent.load(str(folder))
    tokens = torch.tensor([[2, 5, 6, 3] + [0] * 73])
    assert torch.equal(prior.embed(["a cat"]), bert(tokens)[0].detach())
    shutil.rmtree(folder / "vqvae")
    for call in (weights.inspect, latent.load, latent.examine):
        with pytest.raises(ValueError, match=r"no \*\.safetensors in .*vqvae"):
            call(str(folder))


def test_a_pixel_prior_that_lies_flat_is_the_one_in_folders(tmp_path):
    """`google/ddpm-cifar10-32`: the network's files and the scheduler's config side by side."""
    from lgap_bench.prior import pixel

    source, flat = weights.ZOO / "digits" / "pixel", tmp_path / "flat"
    flat.mkdir()
    for file in [*(source / "unet").iterdir(), *(source / "scheduler").iterdir()]:
        shutil.copy(file, flat / file.name)
    expected = pixel.load(str(source))
    pixel.examine(str(flat))
    got = pixel.load(str(flat), labels="floor")
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in got.state_dict().items())
    assert (got.label(0.1), got.alpha(99)) == (100, expected.alpha(99))
    (flat / "scheduler_config.json").unlink()
    with pytest.raises(ValueError, match=r"no \*\.safetensors in .*unet"):
        pixel.load(str(flat))
