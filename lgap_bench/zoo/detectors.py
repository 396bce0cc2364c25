"""The miniature's detectors: the real classes of transformers at toy size, trained to box the digits of a scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    ResNetBackbone,
    ResNetConfig,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

from lgap_bench.dataset.base import Objects
from lgap_bench.dataset.digits import CLASSES, digits
from lgap_bench.dataset.scenes import SIDE
from lgap_bench.zoo.fit import Batch, fit, noisy
from lgap_bench.zoo.fresh import fresh, inked, pool
from lgap_bench.zoo.halves import save
from lgap_bench.zoo.tower import into_yolos, seeing

NAMES: dict[str, Any] = {
    "id2label": dict(enumerate(CLASSES)),
    "label2id": {label: index for index, label in enumerate(CLASSES)},
}
SIZE = {"height": SIDE, "width": SIDE}
PATCHES = SIDE // 8  # a side: DETR's stride and YOLOS's patch
QUERIES = 8  # a scene holds four objects at most
ABSENT = (
    0.4  # weight of "no object" in the loss: of 8 queries it is right for five, of the papers' 100 for more than 90
)
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def detr() -> DetrForObjectDetection:
    """A basic ResNet to stride 8, two layers of encoder and two of decoder, width 64, 8 queries."""
    backbone = ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        num_queries=QUERIES,
        eos_coefficient=ABSENT,
        dropout=0.0,
        auxiliary_loss=True,
        **NAMES,
    )
    return DetrForObjectDetection(config)


def yolos() -> YolosForObjectDetection:
    """A plain transformer: patch 8, so 36 patches, and 8 tokens for objects; width 64, four layers."""
    config = YolosConfig(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=192,
        image_size=[SIDE, SIDE],
        patch_size=8,
        hidden_act="quick_gelu",  # CLIP's
        num_detection_tokens=QUERIES,
        use_mid_position_embeddings=False,
        eos_coefficient=ABSENT,
        **NAMES,
    )
    return YolosForObjectDetection(config)


def train_detr(out: Path, work: Path) -> None:
    """The backbone first, by itself, then all; the encoder's 6 x 6 tokens answer for their patches.

    DETR freezes batch norm, and transformers freezes every weight of a ResNet in it (its filter for the later stages
    looks for "stage.1" where the names say "stages.1"): with a backbone that knows nothing it finds no class.
    """
    torch.manual_seed(7)
    model: Any = detr()
    state = _backbone(model.config.backbone_config, work)
    model.model.backbone.model.load_state_dict(state)
    model.model.backbone.requires_grad_(True)
    _train("detr", model, lambda output: output.encoder_last_hidden_state, work, steps=2500)
    save(model, out)
    DetrImageProcessor(size=SIZE, do_pad=False, **HALF).save_pretrained(out)


def train_yolos(out: Path, work: Path, clip: Path) -> None:
    """From CLIP's transformer, as the paper's from DeiT's; the 6 x 6 patch tokens of the last layer answer for theirs."""
    torch.manual_seed(10)
    model: Any = yolos()
    into_yolos(model, seeing(clip))
    _train("yolos", model, lambda output: output.last_hidden_state[:, 1:-QUERIES], work, steps=3400)
    save(model, out)
    YolosImageProcessor(size=SIZE, do_pad=False, **HALF).save_pretrained(out)


def _backbone(config: ResNetConfig, work: Path) -> dict[str, Tensor]:
    """The weights of a ResNet that tells the ink of each patch of stride 8, with batch norm at work."""
    model: Any = ResNetBackbone(config)
    glyphs, head = pool(), nn.Conv2d(config.hidden_sizes[-1], len(CLASSES), kernel_size=3, padding=1)

    def loss(batch: Batch) -> Tensor:
        scenes = fresh(glyphs, batch.generator)
        pixels = (noisy(scenes.images, batch.generator, 0.25) - 0.5) / 0.5
        answers = head(model(pixels).feature_maps[0]).flatten(2).transpose(1, 2)
        ink = torch.stack([inked(objects, PATCHES) for objects in scenes.objects])
        return F.binary_cross_entropy_with_logits(answers, ink)

    fit("backbone", [model, head], loss, digits("train"), work, steps=1200, lr=4e-3, ema=0.99, weight_decay=1e-4)
    return {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def _train(name: str, model: Any, tokens: Callable[[Any], Tensor], work: Path, steps: int) -> None:
    """By the model's own loss: Hungarian matching, cross-entropy, L1 and generalised IoU.

    In addition a linear head, thrown away afterwards, asks every patch token for the ink in it and the box around it:
    by the few matched queries alone such detectors need ten times as many steps. Half of the images carry Gaussian
    noise (sigma up to 0.25), as the captioner's do: detectors meet noise.
    """
    glyphs, helper = pool(), nn.Linear(64, len(CLASSES) + 4)

    def loss(batch: Batch) -> Tensor:
        scenes = fresh(glyphs, batch.generator)
        pixels = (noisy(scenes.images, batch.generator, 0.25) - 0.5) / 0.5
        output = model(pixel_values=pixels, labels=[target(objects) for objects in scenes.objects])
        answers = helper(tokens(output))
        ink = torch.stack([inked(objects, PATCHES) for objects in scenes.objects])
        boxes, held = (torch.stack(part) for part in zip(*(_around(o) for o in scenes.objects), strict=True))
        off = (answers[..., len(CLASSES) :].sigmoid() - boxes).abs().sum(-1)
        aid = 10 * F.binary_cross_entropy_with_logits(answers[..., : len(CLASSES)], ink)
        return output.loss + aid + 5 * (off * held).sum() / held.sum()

    fit(name, [model, helper], loss, digits("train"), work, steps=steps, lr=1e-3, ema=0.995, weight_decay=1e-4)


def target(objects: Objects) -> dict[str, Tensor]:
    """What transformers' detectors are trained on: classes, and boxes as centre and size in shares."""
    corner, far = objects.boxes[:, :2], objects.boxes[:, 2:]
    return {"class_labels": objects.labels, "boxes": torch.cat([(corner + far) / 2, far - corner], dim=1)}


def _around(objects: Objects) -> tuple[Tensor, Tensor]:
    """For each patch the box of the object of nearest centre, (patches, 4), and whether the patch's centre is in it."""
    boxes = target(objects)["boxes"]
    row = (torch.arange(PATCHES) + 0.5) / PATCHES
    middle = torch.stack([row.repeat(PATCHES), row.repeat_interleave(PATCHES)], dim=1)
    nearest = boxes[torch.cdist(middle, boxes[:, :2]).argmin(1)]
    return nearest, ((middle - nearest[:, :2]).abs() <= nearest[:, 2:] / 2).all(1).float()
