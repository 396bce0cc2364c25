"""`lgap-bench fetch`: what is needed and from where, fetched once from a hub, resumed, checked; and no network where none is wanted."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cells import called
from hub_server import COMMIT, Hub, serving

from lgap_bench import CONF
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.needs import needs
from lgap_bench.runtime import download, sources
from lgap_bench.runtime.sources import Source
from lgap_bench.sweep.fetch import imagenet_classes, wanted_by

EXPERIMENTS = sorted(
    file.relative_to(CONF / "experiment").with_suffix("").as_posix()
    for file in (CONF / "experiment").rglob("*.yaml")
    if "demo" not in file.parts
)
CONTENT = bytes(range(256)) * 4000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LGAP_BENCH_CACHE", str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture
def hub(latent_folder: Path) -> Iterator[Hub]:
    with serving(Hub({"some/model": latent_folder}, {"model.pt": CONTENT})) as running:
        yield running


def fetch(hub: Hub, tmp_path: Path, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which the server is the hub for."""
    # Cells that ran in this process before have told it to stay offline.
    held = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    given = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "LGAP_BENCH_CACHE": str(tmp_path / "own"),
        **changes,
    }
    return subprocess.run(
        [sys.executable, "-m", "lgap_bench.cli", "fetch", *words],
        env={**held, **given},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def source(hub: Hub, file: str = "model.pt", **changes) -> Source:
    return Source(
        "mine/model.pt",
        **{
            "kind": "url",
            "at": f"{hub.url}/files/{file}",
            "data": False,
            "size": 1,
            "licence": "",
            "needed": "",
            **changes,
        },
    )


# The manifest.


def test_everything_that_an_experiment_needs_has_a_source() -> None:
    for name in EXPERIMENTS:
        without = [need.value for need in needs(resolved([f"experiment={name}"])) if need.source is None]
        assert not without, f"{name}: {without}"


def test_a_source_is_complete_and_a_pin_is_a_commit_or_a_checksum() -> None:
    held = yaml.safe_load((CONF / "sources.yaml").read_text())
    assert {name for part in held.values() for name in part} == set(sources.manifest())
    for name, each in sources.manifest().items():
        assert each.size > 0, name
        assert each.licence, name
        assert each.needed, name
        assert (each.kind == "hub") == bool(each.files), name
        assert each.sha256 is None or set(each.sha256) <= set("0123456789abcdef"), name


def test_what_has_no_public_link_says_so_and_names_the_stand_in() -> None:
    said = called("fetch", "diffpure/cifar10/wrn-70-16-dropout/weights.pt", "offline=true")
    assert said.returncode == 1
    assert "by hand" in said.stdout
    assert "instead: classifier=cifar10/scratch" in said.stdout


def test_a_table_needs_what_its_experiments_need_each_thing_once() -> None:
    names = [need.name for need in wanted_by(["lgap/1"])]
    assert len(names) == len(set(names))
    assert {"cifar10", "CompVis/stable-diffusion-v1-4", "Salesforce/blip-image-captioning-base"} <= set(names)
    assert wanted_by(["lgap/1", "dataset=digits"]) == []
    one = [need.name for need in wanted_by(["experiment=coup/table1/coup_apgd,lgap/table1/raw"])]
    assert one.count("cifar10") == 1
    assert "score_sde/checkpoint_8.pth" in one


def test_a_data_set_and_a_file_of_it_have_names_too(tmp_path: Path) -> None:
    (need,) = wanted_by(["cifar10", f"data={tmp_path}"])
    assert (need.key, need.value, need.name) == ("root", str(tmp_path), "cifar10")
    (words,) = wanted_by(["imagenet/classes.txt", f"data={tmp_path}"])
    assert words.value == f"{tmp_path}/imagenet/classes.txt"
    (model,) = wanted_by(["score_sde/checkpoint_8.pth", f"checkpoints={tmp_path}"])
    assert model.value == f"{tmp_path}/score_sde/checkpoint_8.pth"


@pytest.mark.parametrize("words, said", [((), "nothing is named"), (("nonsense",), "is no paper and no table")])
def test_words_that_name_nothing_are_one_line(words, said) -> None:
    done = called("fetch", *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


# The hub.


def test_a_model_of_the_hub_is_fetched_once_in_one_form_and_checked(
    hub: Hub, tmp_path: Path, latent_folder: Path
) -> None:
    first = fetch(hub, tmp_path, "some/model")
    assert first.returncode == 0, first.stderr
    assert "to fetch  some/model" in first.stdout
    assert "fetched some/model" in first.stdout
    snapshot = tmp_path / "hf" / "hub" / "models--some--model" / "snapshots" / COMMIT
    for file in ("unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        assert (snapshot / file).read_bytes() == (latent_folder / file).read_bytes()
    kept = json.loads((tmp_path / "own" / "seen.json").read_text())["some/model"]
    assert kept["revision"] == COMMIT
    assert set(kept["files"]) == {
        file.relative_to(latent_folder).as_posix() for file in latent_folder.rglob("*.safetensors")
    }
    hub.asked.clear()
    again = fetch(hub, tmp_path, "some/model")
    assert again.returncode == 0
    assert "here      some/model" in again.stdout
    assert hub.asked == [], "what is here is not asked for"


@pytest.mark.parametrize(
    "name, said", [("some/body", "the hub has no such model"), ("some/model@v9", "the hub has no revision v9")]
)
def test_a_name_or_revision_that_the_hub_does_not_have_is_one_line(name, said, hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path, name, HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 2, done.stderr  # that line, and how many are not here


def test_a_hub_that_says_another_checksum_is_not_believed_nor_its_file_kept(hub: Hub, tmp_path: Path) -> None:
    hub.lie = "0" * 64
    done = fetch(hub, tmp_path, "some/model")
    assert done.returncode == 1
    assert "another SHA-256 than the hub says" in done.stderr
    assert not (tmp_path / "own" / "seen.json").exists()


def test_a_hub_that_cannot_be_reached_is_one_line(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path, "some/model", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert done.returncode == 1
    assert "the hub could not be asked" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("given, words", [({}, ["offline=true"]), ({"HF_HUB_OFFLINE": "1"}, [])])
def test_offline_nothing_is_asked(given, words, hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path, "some/model", *words, **given)
    assert done.returncode == 1
    assert "1 of 1 are not here (offline)" in done.stderr
    assert hub.asked == []


@pytest.mark.parametrize(
    "files, patterns, chosen",
    [
        (["a.safetensors", "a.bin"], (), ["a.safetensors"]),
        (["m.fp16.safetensors", "m.safetensors", "m.non_ema.safetensors"], (), ["m.safetensors"]),
        (["u/m.fp16.safetensors", "u/m.bin", "v/m.bin"], (), ["u/m.fp16.safetensors", "v/m.bin"]),
        (["m-1-of-2.safetensors", "m-2-of-2.safetensors"], (), ["m-1-of-2.safetensors", "m-2-of-2.safetensors"]),
        (["model_index.json", "v1.safetensors", "u/m.safetensors"], (), ["model_index.json", "u/m.safetensors"]),
        (["safety_checker/m.safetensors", "tf_model.h5", "README.md", "config.json"], (), ["config.json"]),
        (["bert/m.bin", "unet/m.bin", "else/m.bin"], ("bert/*", "unet/*"), ["bert/m.bin", "unet/m.bin"]),
    ],
)
def test_each_folder_of_a_repository_is_fetched_in_one_form(files, patterns, chosen) -> None:
    assert download.chosen(files, patterns) == chosen


# One file.


def test_a_file_is_fetched_whole_and_its_first_checksum_is_held_to(hub: Hub, tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "mine" / "model.pt"
    download.from_url(source(hub), path)
    assert path.read_bytes() == CONTENT
    assert sources.seen()["mine/model.pt"]["files"] == {"model.pt": SHA}
    hub.files["model.pt"] = CONTENT[:-1] + b"x"
    path.unlink()
    with pytest.raises(ValueError, match="was first seen: it was changed or damaged"):
        download.from_url(source(hub), path)
    assert list(path.parent.iterdir()) == [], "nothing half-written"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_goes_on_where_it_stopped(ranges, hub: Hub, tmp_path: Path, own_cache: Path) -> None:
    path, hub.cut, hub.ranges = tmp_path / "model.pt", 300_000, ranges
    with pytest.raises(ValueError, match=r"broke off .*the same command goes on"):
        download.from_url(source(hub, sha256=SHA), path)
    assert not path.exists()
    download.from_url(source(hub, sha256=SHA), path)
    assert path.read_bytes() == CONTENT
    assert [asked[2] for asked in hub.asked] == ["", "bytes=300000-"]
    assert [each.name for each in tmp_path.iterdir() if each != own_cache] == ["model.pt"]


def test_a_whole_part_is_put_in_place_without_being_fetched_again(hub: Hub, tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "model.pt.part").write_bytes(CONTENT)
    download.from_url(source(hub, sha256=SHA), tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content, said",
    [(b"<!DOCTYPE html>quota", "an HTML or XML page"), (b"", "an empty file"), (b"other", "is published")],
)
def test_what_is_not_the_file_is_deleted(content, said, hub: Hub, tmp_path: Path, own_cache: Path) -> None:
    hub.files["model.pt"] = content
    with pytest.raises(ValueError, match=said) as error:
        download.from_url(source(hub, sha256=SHA), tmp_path / "deep" / "model.pt")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_file_that_is_not_there_is_one_line(hub: Hub, tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(ValueError, match="answers 404"):
        download.from_url(source(hub, "none.pt"), tmp_path / "model.pt")


def test_two_processes_do_not_write_one_file(hub: Hub, tmp_path: Path, own_cache: Path) -> None:
    import fcntl

    with (tmp_path / "model.pt.part").open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is fetching it"):
            download.from_url(source(hub), tmp_path / "model.pt")


# Without a network.


def test_imagenets_words_are_a_thousand_and_all_different() -> None:
    words = imagenet_classes().splitlines()
    assert (len(words), len(set(words))) == (1000, 1000)
    assert (words[0], words[999]) == ("tench", "toilet tissue")


def test_what_can_be_made_here_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # of cells that ran in this process before
    done = called("fetch", "imagenet/classes.txt", f"data={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "imagenet" / "classes.txt").read_text() == imagenet_classes()


NO_SOCKETS = """
import socket, sys
def refused(*given):
    raise AssertionError("a socket was opened")
socket.socket.connect = refused
socket.create_connection = refused
socket.getaddrinfo = refused
from lgap_bench.cli import main
main()
"""


def test_a_cell_runs_offline_with_every_socket_refused(tmp_path: Path) -> None:
    words = ["run", "offline=true", "n=2", "chunk=2", "score_draws=1", "attack.steps=1", f"outputs={tmp_path}/out"]
    words += ["logger=[console,wandb]", "logger.wandb.mode=online", "logger.wandb.wait=60"]
    done = subprocess.run([sys.executable, "-c", NO_SOCKETS, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a socket was opened" not in done.stderr + done.stdout
    assert list((tmp_path / "out" / "wandb").rglob("offline-run-*")), "Weights & Biases keeps its run in files"


@pytest.mark.parametrize(
    "words, thing",
    [
        (["experiment=lgap/table1/raw"], "robustbench/cifar10/Linf/Standard.pt"),
        (["experiment=coup/table1/coup_apgd"], "score_sde/checkpoint_8.pth"),
        (["experiment=conditioned_denoising/transfer/to_other"], "openai/clip-vit-"),
        (["experiment=lgap/table1/lgap", "classifier=digits/standard"], "CompVis/stable-diffusion-v1-4"),
    ],
)
def test_a_cell_without_its_model_names_it_where_it_was_looked_for_and_the_command(
    words, thing, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    for file in ("instances_val2017.json", "captions_val2017.json"):
        (tmp_path / "data" / "coco" / "annotations").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "coco" / "annotations" / file).write_text("{}")
    done = called("run", *words, f"outputs={tmp_path}/out", f"data={tmp_path}/data", f"checkpoints={tmp_path}/models")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "looked for" in done.stderr
    assert f"lgap-bench fetch {thing}" in done.stderr
    assert f"checkpoints={tmp_path}/models" in done.stderr or thing[0].isupper() or thing.startswith("openai")
