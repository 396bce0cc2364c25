"""dry=true: headers, shapes, tokenizers, packages; what is missing once each, with what it is for and the command; exit code 1."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import true_size
from cells import called
from safetensors.torch import load_file, save_file
from test_experiments import PAPERS

from lgap_bench.captioner import blip
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.dry import look
from lgap_bench.cell.needs import missing
from lgap_bench.classifier import clip
from lgap_bench.detector import boxes, superpoint
from lgap_bench.prior import latent, pixel
from lgap_bench.runtime.weights import ZOO


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("papers")
    true_size.papers_models(root)
    return root


@pytest.mark.slow
def test_every_experiment_passes_at_paper_scale_with_the_models_true_sizes(models: Path) -> None:
    """Only RobustBench's files and the images are missing then, and named."""
    taken = sum(file.stat().st_blocks * 512 for file in models.rglob("*.safetensors"))
    assert taken < 100e6 < sum(file.stat().st_size for file in models.rglob("*.safetensors"))
    for name in PAPERS:
        found = look(resolved([f"experiment={name}", f"checkpoints={models}"]))
        lacking = {lack.name for lack in found.lacks}
        allowed = ("robustbench/", "torchvision/", "diffpure/", "cifar", "imagenet", "coco")
        assert all(each.startswith(allowed) for each in lacking), f"{name}: {lacking}"
        assert all(lack.part and lack.mend for lack in found.lacks), name


ZOOS = {
    "digits/latent": latent, "scenes/inpaint": latent, "digits/pixel": pixel, "digits/blip": blip, "scenes/clip": clip,
    "scenes/detr": boxes, "scenes/yolos": boxes, "scenes/superpoint": superpoint,
}  # fmt: skip


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ZOO / name, tmp_path / "model"))


@pytest.mark.parametrize("name", ZOOS)
@pytest.mark.parametrize("how", ["whole", "missing", "transposed", "cut off", "no config"])
def test_what_a_loader_would_refuse_is_refused_by_headers_alone(name, how, tmp_path, monkeypatch) -> None:
    folder, module = copied(name, tmp_path), ZOOS[name]
    file = sorted(folder.rglob("*.safetensors"))[0]
    tensors = load_file(file)
    key = next(key for key, value in tensors.items() if value.dim() > 1 and value.shape[0] != value.shape[1])
    if how == "missing":
        del tensors[key]
    elif how == "transposed":
        tensors[key] = tensors[key].transpose(0, 1).contiguous()
    if how in ("missing", "transposed"):
        save_file(tensors, file, metadata={"format": "pt"})
    elif how == "cut off":
        file.write_bytes(file.read_bytes()[:-5])
    elif how == "no config":
        (file.parent / "config.json").unlink()
    if how == "whole":
        return module.examine(str(folder))
    with pytest.raises(ValueError, match=r"weights=|no DDPM") as error:
        module.examine(str(folder))
    assert "\n" not in str(error.value)
    assert how not in ("missing", "transposed") or "lacks 1 tensors" in str(error.value)


@pytest.mark.parametrize("name, part", [("digits/latent", "tokenizer"), ("digits/blip", "."), ("scenes/clip", ".")])
def test_a_tokenizer_of_other_words_is_refused(name, part, tmp_path) -> None:
    folder = copied(name, tmp_path)
    file = folder / part / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["stranger"] = len(vocabulary) + len(content["added_tokens"])
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="its tokenizer knows"):
        ZOOS[name].examine(str(folder))


def test_a_sweep_names_each_missing_thing_once_for_how_many_cells_and_exits_1(tmp_path) -> None:
    done = called(
        "run",
        "-m",
        "experiment=lgap/table1/lgap,lgap/table1/raw",
        "dry=true",
        f"outputs={tmp_path}",
        f"checkpoints={tmp_path}",
    )
    assert done.returncode == 1
    assert "2 lack something" in done.stderr
    assert (
        done.stderr.count(
            "missing: CompVis/stable-diffusion-v1-4, for 1 cell (prior of purifier=lgap): lgap-bench fetch"
        )
        == 1
    )
    assert (
        done.stderr.count("missing: robustbench/cifar10/Linf/Standard.pt, for 2 cells (classifier=cifar10/standard)")
        == 1
    )
    assert not list(tmp_path.rglob("*.json")), "a dry run leaves nothing"


def test_a_cell_alone_lists_what_it_lacks_and_exits_1(tmp_path) -> None:
    done = called("run", "experiment=lgap/table1/lgap", "dry=true", f"outputs={tmp_path}", f"checkpoints={tmp_path}")
    assert done.returncode == 1
    assert (
        done.stdout.count("Salesforce/blip-image-captioning-base, for captioner of purifier=lgap: lgap-bench fetch")
        == 1
    )
    assert done.stderr.count("\n") == 1
    assert called("run", "dry=true", f"outputs={tmp_path}").returncode == 0


def test_a_damaged_model_fails_the_dry_run_of_a_cell(tmp_path) -> None:
    folder = copied("digits/latent", tmp_path)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:-1].clone()
    save_file(tensors, file)
    done = called("run", f"prior.weights={folder}", "dry=true", f"outputs={tmp_path}/out")
    assert done.returncode == 1
    assert "conv_in.weight, which has another shape there" in done.stderr


def test_a_checkpoint_that_is_a_page_fails_the_dry_run(tmp_path) -> None:
    file = tmp_path / "robustbench" / "cifar10" / "Linf" / "Standard.pt"
    file.parent.mkdir(parents=True)
    file.write_text("<html>quota</html>")
    done = called("run", "experiment=lgap/table1/raw", "dry=true", f"outputs={tmp_path}/out", f"checkpoints={tmp_path}")
    assert done.returncode == 1
    assert "is an HTML or XML page" in done.stderr


def test_an_optional_package_is_named(tmp_path, monkeypatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torchsde" else real(name, *rest)
    )
    words = ["experiment=coup/beyond/coup_linf_adjoint_release", "dataset=digits"]
    (lack,) = look(resolved(words)).lacks
    assert (lack.name, lack.part) == ("torchsde", "view=adjoint")
    assert lack.mend == "pip install 'lgap-bench[adjoint]'"


def test_images_of_ones_own_are_asked_for_instead_of_the_official_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("LGAP_BENCH_DATA", str(tmp_path / "nothing"))
    words = ["dataset=cifar10", "classifier=cifar10/resnet18", "purifier=none", "attack=pgd", "n=4"]
    file = tmp_path / "images.npz"
    (need,) = missing(resolved([*words, f"dataset.files={file}"]))
    assert (need.key, need.value) == ("files", str(file))
    file.write_bytes(b"")
    assert missing(resolved([*words, f"dataset.files={file}"])) == []
    (official,) = missing(resolved(words))
    assert official.key == "root"
