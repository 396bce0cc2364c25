"""Conditioned denoising on COCO as a user runs it: the command, the paper's own configs, random models of the true architecture.

On real images where the sample folder is there, and on a drawn COCO everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cells import called
from diffusers import UNet2DConditionModel
from test_coco import MINI, Tiny
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

from lgap_bench.cell.compose import resolved
from lgap_bench.evaluation.export import FLOATS
from lgap_bench.prior.latent import load as load_latent
from lgap_bench.record import records

SIDE = 64
SHAPED = [f"dataset.size={SIDE}", "purifier.resize_in=null", "purifier.steps=2", "threads=1"]
FEW = ["n=1", "chunk=1", "score_draws=2", "attack.steps=2", "device=cpu"]
CLASSES = resolved(["experiment=conditioned_denoising/table/inpaint"]).dataset["classes"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP, YOLOS and an inpainting model under the names that the paper's configs look for."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    tokenizer = _digits().tokenizer
    tokenizer.model_max_length = 77  # COCO's words fall apart into letters
    shared = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, projection_dim=8)
    text = dict(shared, vocab_size=len(tokenizer), max_position_embeddings=77)
    text |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    clip = CLIPModel(
        CLIPConfig(text_config=text, vision_config=dict(shared, image_size=32, patch_size=8), projection_dim=8)
    )
    with torch.no_grad():
        for weight in clip.parameters():  # fresh weights give every image the same features
            weight.mul_(6 if weight.dim() > 1 else 1)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    for part in (clip, tokenizer, images):
        part.save_pretrained(folder / "clip-vit-base-patch32")

    names = dict(id2label=dict(enumerate(CLASSES)))
    yolos = YolosForObjectDetection(
        YolosConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
                    image_size=[SIDE, SIDE], patch_size=16, num_detection_tokens=6, **names)
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in yolos.named_parameters():
            weight.mul_(40 if "class" in name and weight.dim() > 1 else 2)
    yolos.save_pretrained(folder / "yolos-small")
    YolosImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder / "yolos-small")

    prior = _digits()
    unet = UNet2DConditionModel.from_config({**prior.unet.config, "in_channels": 9})
    out = folder / "stable-diffusion-2-inpainting"
    for name, part in (
        ("vae", prior.vae),
        ("unet", unet),
        ("text_encoder", prior.text_encoder),
        ("tokenizer", prior.tokenizer),
    ):
        part.save_pretrained(out / name)
    from lgap_bench.zoo.latent import scheduler

    scheduler().save_pretrained(out / "scheduler")
    return folder


def _digits():
    return load_latent("embedded:digits/latent")


def drawn(folder: Path) -> list[str]:
    """A COCO of ten drawn images whose JSON lists all 80 classes."""
    made = Tiny(folder / "drawn")
    made.held["categories"] = [{"id": place + 1, "name": name} for place, name in enumerate(CLASSES)]
    # A subset, as the paper's own: the threshold is chosen on other images all the same.
    subset = "dataset.subset={name: few, classes: 2, images: 4}"
    return [*located({key: made.save()[key] for key in ("root", "instances", "sentences")}), subset]


def real() -> list[str]:
    return located({
        "root": str(MINI / "val2017"),
        "instances": {"file": str(MINI / "instances_val2017.json")},
        "sentences": {"file": str(MINI / "captions_val2017.json")},
    })  # fmt: skip


def located(where: dict) -> list[str]:
    return [
        f"dataset.root={where['root']}", f"dataset.instances.file={where['instances']['file']}",
        f"dataset.sentences.file={where['sentences']['file']}", "subset=none",
    ]  # fmt: skip


@pytest.mark.parametrize("images", ["drawn", "real"])
def test_one_image_passes_the_whole_pipeline_and_out_again_as_a_data_set(images, checkpoints, tmp_path):
    if images == "real" and not MINI.is_dir():
        pytest.skip("needs coco_mini in the folder that LGAP_BENCH_COCO_SAMPLE names")
    data = drawn(tmp_path) if images == "drawn" else real()
    words = [
        "experiment=conditioned_denoising/beyond/bpda_detector",
        *data,
        *SHAPED,
        *FEW,
        f"checkpoints={checkpoints}",
    ]
    done = called("run", *words, "export=true", f"outputs={tmp_path}/out", "logger=none")
    assert done.returncode == 0, done.stderr
    found = {record.summary()["attack_name"]: record for record in records(tmp_path / "out")}
    record = found["reduced_bpda_detector"] if "reduced_bpda_detector" in found else found["bpda_detector"]
    samples, summary = record.samples(), record.summary()
    assert len(samples["labels"][0]) == 80
    assert np.asarray(samples["attacked_scores"]).shape == (1, 2, 80)
    assert samples["clean_caption"][0].startswith("a photo of")
    assert 0 <= samples["clean_region"][0] <= 1
    assert set(summary["labels"]) >= {"threshold", "clean", "attacked", "attack_success"}
    (folder,) = (tmp_path / "out" / "exports").iterdir()
    line = json.loads((folder / "images" / "metadata.jsonl").read_text())
    assert line["labels"] == np.flatnonzero(samples["labels"][0]).tolist()
    assert np.load(folder / FLOATS)["attacked"].shape == (1, 3, SIDE, SIDE)


def test_a_detector_that_does_not_know_the_data_sets_words_is_refused_before_the_attack(checkpoints, tmp_path):
    words = [
        "experiment=conditioned_denoising/table/inpaint",
        *drawn(tmp_path),
        *SHAPED,
        *FEW,
        f"checkpoints={checkpoints}",
    ]
    strange = YolosForObjectDetection(
        YolosConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[SIDE, SIDE],
                    num_detection_tokens=2, id2label={0: "house", 1: "moon"})
    )  # fmt: skip
    strange.save_pretrained(tmp_path / "strange")
    YolosImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(tmp_path / "strange")
    done = called("run", *words, f"detector.weights={tmp_path}/strange", f"outputs={tmp_path}/out", "logger=none")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "person" in done.stderr
    assert "labels are not the data set's" in done.stderr or "no label" in done.stderr


@pytest.mark.parametrize(
    "change, told",
    [
        (["detector.threshold=1.5"], "detector.threshold=1.5 is not in (0, 1)"),
        (["prior=coco/latent"], "purifier=inpaint needs a inpaint prior"),
        (["purifier.text=caption"], "use purifier=inpaint_caption"),
        (["purifier.region=around"], "purifier.region=around is not"),
        (["threat=coco/unbounded"], "threat"),
    ],
)
def test_bad_settings_are_refused_in_one_line(change, told, checkpoints, tmp_path):
    words = ["experiment=conditioned_denoising/table/inpaint", *drawn(tmp_path), *SHAPED, f"checkpoints={checkpoints}"]
    done = called("run", *words, *change, "dry=true", f"outputs={tmp_path}/out")
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
