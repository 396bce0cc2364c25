"""What the models of scenes are measured by: average precision of classes, and found objects of detectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from lgap_bench.captioner.blip import load as load_blip
from lgap_bench.dataset.base import DataSet, Objects
from lgap_bench.dataset.digits import CLASSES
from lgap_bench.dataset.scenes import SIDE, scenes
from lgap_bench.noise import streams
from lgap_bench.prior.latent import load as load_latent
from lgap_bench.runtime import weights as weight_files
from lgap_bench.zoo.figures import write_cards, write_manifest

THRESHOLD = 0.6  # score from which a detector's box counts, chosen on validation scenes
OVERLAP = 0.5  # IoU from which a box is an object's


@torch.no_grad()
def measure(data: DataSet) -> dict[str, dict[str, float]]:
    """Every figure of the cards, by component that is there. Deterministic: noise is keyed by sample."""
    measures = {
        "clip": _clip,
        "detr": lambda scenes: _detector("detr", scenes),
        "yolos": lambda scenes: _detector("yolos", scenes),
        "superpoint": _keypoints,
        "blip": _captions,
        "latent": _latent,
        "inpaint": _inpaint,
    }
    last = {"latent": "latent/unet", "inpaint": "inpaint/unet"}  # what is trained last in a folder of several
    places = {name: weight_files.ZOO / "scenes" / last.get(name, name) for name in measures}
    return {name: figures(data) for name, figures in measures.items() if any(places[name].glob("*.safetensors"))}


def _clip(data: DataSet) -> dict[str, float]:
    from transformers import CLIPModel, CLIPTokenizer

    assert data.present is not None
    folder = weight_files.locate("embedded:scenes/clip")
    model: Any = CLIPModel.from_pretrained(folder).eval()
    prompts = CLIPTokenizer.from_pretrained(folder)(
        [data.true_caption(label) for label in range(len(CLASSES))], padding="max_length", return_tensors="pt"
    )
    scores = torch.cat([model(pixel_values=2 * x - 1, **prompts).logits_per_image for x in data.images[:].split(250)])
    top = data.present.gather(1, scores.argmax(1)[:, None]).float().mean().item()
    return {
        "mAP, %": mean_average_precision(scores, data.present),
        "top class is in the image, %": round(100 * top, 1),
    }


def _detector(name: str, data: DataSet) -> dict[str, float]:
    from transformers import AutoModelForObjectDetection

    assert data.objects is not None
    model = AutoModelForObjectDetection.from_pretrained(weight_files.locate(f"embedded:scenes/{name}")).eval()
    found = detect(model, data.images[:], sigmoid=name == "rt_detr")
    recall, precision = found_objects(found, data.objects, THRESHOLD)
    dense = [row for row, things in enumerate(data.objects) if len(things.labels) == 4]
    recall_dense, _ = found_objects([found[row] for row in dense], [data.objects[row] for row in dense], THRESHOLD)
    return {
        f"recall at IoU {OVERLAP}, score {THRESHOLD}, %": recall,
        f"precision at IoU {OVERLAP}, score {THRESHOLD}, %": precision,
        "recall in scenes of four objects, %": recall_dense,
    }


def _keypoints(data: DataSet) -> dict[str, float]:
    """How much of the digits its mask covers, and how much of the image; of 200 scenes, since each takes a mixture."""
    from lgap_bench.detector.superpoint import load as load_superpoint

    x = data.images[:200]
    masks = [found.mask for found in load_superpoint("embedded:scenes/superpoint", 32, 5, 1)(x)]
    covered = [(mask & (image[0] > 0.3)).sum() / (image[0] > 0.3).sum() for mask, image in zip(masks, x, strict=True)]
    share = torch.stack([mask.double().mean() for mask in masks]).mean()
    return {
        "ink in the mask, %": round(100 * torch.stack(covered).mean().item(), 1),
        "image in the mask, %": round(100 * share.item(), 1),
    }


def _captions(data: DataSet) -> dict[str, float]:
    """A caption is right where it names the classes of the scene and no other; words are separate in every caption."""
    assert data.present is not None
    blip = load_blip("embedded:scenes/blip", prompt="a photo of a", max_length=16)
    said = [set(text.replace(",", " ").split()) for x in data.images[:].split(250) for text in blip(x)]
    named = torch.tensor([[word in words for word in CLASSES] for words in said])
    recall = (named & data.present).sum() / data.present.sum()
    precision = (named & data.present).sum() / named.sum()
    return {
        "names exactly the classes, %": round(100 * (named == data.present).all(1).float().mean().item(), 1),
        "classes named, %": round(100 * recall.item(), 1),
        "named classes that are there, %": round(100 * precision.item(), 1),
    }


def _sources(captions: Sequence[str]) -> dict[str, list[str]]:
    """True captions, none, and the next scene's."""
    return {"true": list(captions), "empty": [""] * len(captions), "another": [*captions[1:], captions[0]]}


def _latent(data: DataSet) -> dict[str, float]:
    """PSNR of the autoencoder, and the network's noise error under true, empty and wrong captions at t = 499."""
    prior = load_latent("embedded:scenes/latent")
    assert data.captions is not None
    x = data.images[:500]
    noise = streams(0, data.ids[:500].tolist())["score"].draws()
    z = prior.encode(x, noise)
    n = noise.normal(z, "forward")
    z_t = prior.alpha(499) ** 0.5 * z + (1 - prior.alpha(499)) ** 0.5 * n
    errors = {
        f"noise error at t = 499, {name} caption": round(
            F.mse_loss(prior.noise(z_t, 499, prior.condition(captions, "", 1.0)), n).item(), 4
        )
        for name, captions in _sources(data.captions[:500]).items()
    }
    psnr = -10 * torch.log10(F.mse_loss(prior.decode(z), x))
    return {"reconstruction PSNR, dB": round(psnr.item(), 1), **errors}


def _inpaint(data: DataSet) -> dict[str, float]:
    """The network's noise error in the holes, which are the objects' boxes, at t = 749: little of the image is left."""
    prior = load_latent("embedded:scenes/inpaint")
    assert data.captions is not None
    assert data.objects is not None
    x = data.images[:500]
    noise = streams(0, data.ids[:500].tolist())["score"].draws()
    mask = torch.stack([boxes_mask(objects) for objects in data.objects[:500]])[:, None]
    z = prior.encode(x, noise)
    seen = prior.encode(x * (1 - mask) + 0.5 * mask, noise)  # grey is 0 in [-1, 1]
    n = noise.normal(z, "forward")
    z_t = prior.alpha(749) ** 0.5 * z + (1 - prior.alpha(749)) ** 0.5 * n
    small = F.interpolate(mask, z.shape[-2:])
    given, inside = torch.cat([z_t, small, seen], dim=1), small.expand_as(z) > 0.5
    return {
        f"noise error in the objects' boxes at t = 749, {name} caption": round(
            F.mse_loss(prior.noise(given, 749, prior.condition(captions, "", 1.0))[inside], n[inside]).item(), 4
        )
        for name, captions in _sources(data.captions[:500]).items()
    }


def boxes_mask(objects: Objects) -> Tensor:
    """1 inside of any object's box, (48, 48) float."""
    mask = torch.zeros(SIDE, SIDE)
    for left, top, right, bottom in (objects.boxes * SIDE).round().long().tolist():
        mask[top:bottom, left:right] = 1
    return mask


def mean_average_precision(scores: Tensor, present: Tensor) -> float:
    """Mean over classes of the average precision of the images' ranking, percent; scores and present (N, classes)."""
    each = []
    for score, there in zip(scores.T, present.T, strict=True):
        hit = there[score.argsort(descending=True, stable=True)].double()
        each.append(((hit.cumsum(0) / torch.arange(1, len(hit) + 1)) * hit).sum() / hit.sum())
    return round(100 * torch.stack(each).mean().item(), 1)


@torch.no_grad()
def detect(model: Any, images: Tensor, sigmoid: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Scores (q,), labels (q,) and boxes (q, 4, corners in shares) of all queries of each image (N, 3, H, W) in [0, 1]."""
    found = []
    for x in images.split(100):
        out = model(pixel_values=(x - 0.5) / 0.5)
        chances = out.logits.sigmoid() if sigmoid else out.logits.softmax(-1)[..., :-1]
        scores, labels = chances.max(-1)
        centre, size = out.pred_boxes[..., :2], out.pred_boxes[..., 2:]
        corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1)
        found += list(zip(scores, labels, corners, strict=True))
    return found


def found_objects(
    found: Sequence[tuple[Tensor, Tensor, Tensor]], objects: Sequence[Objects], threshold: float
) -> tuple[float, float]:
    """Recall and precision, percent, of boxes of the right class at IoU 0.5; each object is found once, by the surest."""
    hits = boxes = total = 0
    for (scores, labels, corners), true in zip(found, objects, strict=True):
        order = scores.argsort(descending=True)
        order = order[scores[order] >= threshold]
        free = torch.ones(len(true.labels), dtype=torch.bool)
        overlaps = box_iou(corners[order], true.boxes)
        for label, overlap in zip(labels[order].tolist(), overlaps, strict=True):
            fits = (overlap >= OVERLAP) & free & (true.labels == label)
            if fits.any():
                free[(overlap * fits).argmax()] = False
                hits += 1
        boxes, total = boxes + len(order), total + len(free)
    return round(100 * hits / total, 1), round(100 * hits / max(boxes, 1), 1)


RECIPES = {
    "clip": "CLIPModel at toy size (patch 8, width 64, 4 + 2 layers), a yes or no per prompt, for images and for their patches, 3,000 steps of 64.",
    "detr": "DetrForObjectDetection at toy size (ResNet to stride 8, width 64, 2 + 2 layers, 8 queries): the ResNet by itself, 1,200 steps of 64, then all, 2,500.",
    "yolos": "YolosForObjectDetection at toy size (patch 8, width 64, 4 layers, 8 tokens), from the transformer of scenes/clip, 3,400 steps of 64.",
    "superpoint": "SuperPointForKeypointDetection at toy size (widths 8 to 32), Harris's corners of clean scenes as answers, 1,200 steps of 64.",
    "blip": "BLIP at toy size (patch 8, width 64, 4 + 2 layers) from the transformer of scenes/clip, teacher forcing on captions that name every class, 1,500 steps of 64.",
    "latent": "The digits' AutoencoderKL gone on with (800 steps of 32), then UNet2DConditionModel, from the digits' own, and CLIPTextModel together (1,500 steps of 32). Stable Diffusion's folder layout.",
    "inpaint": "The latent model's network with five more channels, trained on holes of four kinds (1,000 steps of 32). Stable Diffusion's inpainting layout.",
}
COMMANDS = {
    "latent": "scenes-vae` and then `python -m lgap_bench.zoo scenes-unet",
    **{name: f"scenes-{name}" for name in ("clip", "detr", "yolos", "superpoint", "blip", "inpaint")},
}


def write_all(root: Path) -> None:
    """Measure the scenes' components, write their cards and the manifest."""
    write_cards(root, measure(scenes("test")), RECIPES, COMMANDS, "1,000 test scenes (latent and inpaint: 500)")
    write_manifest()
