"""A finished cell's attacked images as a data set of its own: float tensors, 8-bit images with metadata, a data card.

<outputs>/exports/<record>/   attacked.npz           float32 images and their ids: attack=given attack.file=... scores them again
                              attacked_8bit.npz      the same, rounded to 8 bits inside the ball
                              images/<id>.png        those as files, with images/metadata.jsonl (Hugging Face's `imagefolder`)
                              README.md              the data card
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.cell.values import fraction
from lgap_bench.record import Record
from lgap_bench.runtime import files
from lgap_bench.task.single_label import SINGLE_LABEL

LEVELS = 255  # of 8 bits
TOLERANCE = 1e-6  # as the threat's
FLOATS, BYTES = "attacked.npz", "attacked_8bit.npz"


def export(record: Record, clean: NDArray[np.float32], outputs: Path) -> Path:
    """Write the data set of a finished record that kept its images, and return its folder; what is there is written anew.

    Args:
        clean: the cell's clean images (n, C, H, W) in [0, 1], in the record's order: the ball is around them.
    """
    from PIL import Image

    summary, samples = record.summary(), record.samples()
    folder = outputs / "exports" / record.folder.name
    held = files.read_npz(record.folder / "images.npz", "and its folder, the cell is computed again")
    attacked = held["attacked"].astype(np.float32)
    rounded = to_8_bit(attacked, clean, summary["norm"], fraction(summary["eps"], "threat.eps"))
    files.write_npz(folder / FLOATS, {"attacked": attacked, "ids": held["ids"]}, compressed=True)
    floats = rounded.astype(np.float32) / LEVELS
    files.write_npz(folder / BYTES, {"attacked": floats, "ids": held["ids"]}, compressed=True)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines, success = [], 1 - SINGLE_LABEL.correct(samples, "attacked").mean(1)
    for place, image in enumerate(rounded):
        row = _sample(record, summary, samples, place, float(success[place]))
        files.write(folder / "images" / row["file_name"], partial(_png, Image, image))
        lines.append(json.dumps(row))
    text = "\n".join(lines) + "\n"
    files.write(folder / "images" / "metadata.jsonl", lambda stream: stream.write(text.encode()))
    files.write(folder / "README.md", lambda stream: stream.write(card(record, summary).encode()))
    return folder


def to_8_bit(attacked: NDArray[np.float32], clean: NDArray[np.float32], norm: str, eps: float) -> NDArray[np.uint8]:
    """Images in [0, 1] as whole levels 0 to 255 that stay inside the ball around the clean ones.

    linf: the nearest level, or the nearest inside the ball. l2: the nearest level that is no farther from the clean pixel, so
    that no image grows longer. Where a clean pixel is no whole level and none lies between it and the attacked one, its own
    nearest is taken, at most 1/510 away. Raises ValueError where that leaves the linf ball: the budget is finer than 8 bits.
    """
    x, x_adv = clean.astype(np.float64) * LEVELS, attacked.astype(np.float64) * LEVELS
    slack = TOLERANCE * LEVELS
    if norm == "linf":
        low, high = np.ceil(x - eps * LEVELS - slack), np.floor(x + eps * LEVELS + slack)
        if (low > high).any():
            raise ValueError(
                f"export=true with threat.eps={eps:g}: no 8-bit image lies inside the ball, use keep_images=true for float images alone"
            )
    else:
        low, high = np.ceil(np.minimum(x, x_adv) - slack), np.floor(np.maximum(x, x_adv) + slack)
        none = low > high
        low, high = np.where(none, np.rint(x), low), np.where(none, np.rint(x), high)
    return np.clip(np.rint(x_adv), low, high).clip(0, LEVELS).astype(np.uint8)


def _png(image_module: Any, image: NDArray[np.uint8], stream: Any) -> None:
    pixels = image.transpose(1, 2, 0)
    image_module.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, format="PNG")


def _sample(
    record: Record, summary: Mapping[str, Any], samples: Mapping[str, Sequence[Any]], place: int, success: float
) -> dict[str, Any]:
    """A line of the metadata."""
    classes = record.classes()
    labels = [samples["label"][place]] if "labels" not in samples else np.flatnonzero(samples["labels"][place]).tolist()
    return {
        "file_name": f"{samples['id'][place]}.png",
        "id": samples["id"][place],
        "labels": labels,
        "words": [classes[label] for label in labels],
        **{key: summary[f"{key}_name"] for key in ("dataset", "purifier", "classifier", "attack")},
        **{key: summary[key] for key in ("view", "norm", "eps", "seed")},
        "record": record.folder.name,
        "linf": samples["linf"][place],
        "l2": samples["l2"][place],
        "failed": bool(samples["failed"][place]),
        "success": success,
    }


def card(record: Record, summary: Mapping[str, Any]) -> str:
    """The data card: what the images are, how they were made, how to use them."""
    robust = summary.get("robust", {}).get("mean", float("nan"))
    facts = {key: summary[key] for key in ("n", "seed", "norm", "eps", "view")}
    lines = [
        f"# Attacked images of {summary['dataset_name']}: {summary['attack_name']}, {summary['norm']} {summary['eps']}",
        "",
        "For scoring other defenses on the same attacked images. Made by lgap-bench; the licence is that of the source images.",
        "",
        f"- Attacked: purifier {summary['purifier_name']}, classifier {summary['classifier_name']}, view {summary['view']}.",
        f"- Settings: {', '.join(f'{key} {value}' for key, value in facts.items())}; record {record.folder.name}.",
        f"- Robust accuracy there: {robust:.1f} % (verdict: {record.verdict()[0]}). `success` is per sample, over score draws.",
        f"- `{FLOATS}`: float32 in [0, 1], channels first, with sample ids: the attack's own images.",
        f"- `images/`: the same rounded to 8 bits inside the ball, with `metadata.jsonl`; `{BYTES}` holds them as floats.",
        "",
        "    lgap-bench run attack=given attack.file=<this folder>/attacked.npz ...",
        '    datasets.load_dataset("imagefolder", data_dir="<this folder>/images")',
        "",
        "Attacks on one defense say little about another: see the record's view before reading a number as robustness.",
        "",
    ]
    return "\n".join(lines)
