"""The loop over chunks: attack, check, score with fresh draws, save. It never knows which purifier or attack it holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lgap_bench.attack.loss import margin
from lgap_bench.attack.problem import Problem
from lgap_bench.attack.select import damage
from lgap_bench.attack.view import Full
from lgap_bench.cell import Parts
from lgap_bench.defense import Defense
from lgap_bench.metric.accuracy import accuracy
from lgap_bench.metric.caption import bleu, names_label, reached, rouge_l
from lgap_bench.noise import streams
from lgap_bench.record import PICTURES, Chunk, Record

Progress = Callable[[int, int, float, float], None]  # samples done, n, robust so far in percent, seconds left


def evaluate(parts: Parts, cell: dict[str, Any], record: Record, device: str, progress: Progress) -> list[Chunk]:
    """Attack and score the first n samples, chunk by chunk; finished chunks are taken from the record.

    Returns the chunks: per-sample columns and, for the first images, pictures.
    """
    n, size = cell["n"], cell["chunk"]
    if n > len(parts.dataset):
        raise ValueError(f"n={n} is more than dataset={cell['dataset_name']} has: {len(parts.dataset)} images")
    _agree(parts, cell, device)
    chunks: list[Chunk] = []
    began, fresh = time.monotonic(), 0
    for index, start in enumerate(range(0, n, size)):
        rows = slice(start, min(start + size, n))
        chunk = record.chunk(index)
        if chunk is None or (cell["keep_images"] and "image_attacked" not in chunk):
            at = time.monotonic()
            chunk = _chunk(parts, cell, rows, device)
            chunk["seconds"] = np.asarray(time.monotonic() - at)
            record.save_chunk(index, chunk)
            fresh += rows.stop - start
        chunks.append(chunk)
        right = np.concatenate([_correct(c, "attacked")[:, ~c["failed"]].mean(0) for c in chunks])
        pace = (time.monotonic() - began) / max(fresh, 1)
        progress(rows.stop, n, 100 * float(right.mean()) if len(right) else float("nan"), pace * (n - rows.stop))
    return chunks


@torch.no_grad()
def _agree(parts: Parts, cell: dict[str, Any], device: str) -> None:
    """One image before any attack: does the classifier fit the data set, and is the defense as randomized as it says?"""
    defense: Defense = parts.defense
    x = parts.dataset.images[:1].to(device=device, dtype=_image_dtype(cell))
    ids = parts.dataset.ids[:1].tolist()
    first, second = (defense(x, streams(seed, ids)["select"].draws()) for seed in (0, 1))
    if not bool(torch.isfinite(first).all()):
        raise ValueError(
            f"purifier={cell['purifier_name']}, classifier={cell['classifier_name']}: logits of sample {ids[0]} are not "
            "finite: try dtype=float32 or milder settings"
        )
    if first.shape[-1] != len(parts.dataset.classes):
        raise ValueError(
            f"classifier={cell['classifier_name']} has {first.shape[-1]} classes, dataset={cell['dataset_name']} has "
            f"{len(parts.dataset.classes)}: choose a classifier of that data set"
        )
    if not defense.randomized and not torch.equal(first, second):
        raise ValueError(
            f"purifier={cell['purifier_name']} answers differently under other noise and says randomized = False: "
            "set randomized = True in its class"
        )


def _chunk(parts: Parts, cell: dict[str, Any], rows: slice, device: str) -> Chunk:
    """Everything about one run of samples."""
    data = parts.dataset
    x = data.images[rows].to(device=device, dtype=_image_dtype(cell))
    y = data.labels[rows].to(device)
    ids = tuple(data.ids[rows].tolist())
    words = tuple(data.true_caption(k) for k in range(len(data.classes)))
    truths = [words[k] for k in y.tolist()]
    problem = Problem(parts.view, x, y, ids, parts.threat, cell["seed"], truths, words, data.unrelated)
    x_adv, failed = _attacked(parts, problem, cell["attack_name"])
    if cell["attack_name"] != "none":
        parts.threat.check(x_adv, x, ids, cell["attack_name"])

    defense: Defense = parts.defense
    columns: Chunk = {"id": np.asarray(ids), "label": y.cpu().numpy(), "failed": failed.cpu().numpy()}
    for name, images in (("clean", x), ("attacked", x_adv)):
        columns |= _scored(parts, cell, images, y, ids, name)
    columns["attacked_damage"] = _damage(parts, cell, problem, x_adv)
    delta = (x_adv - x).flatten(1)
    columns["linf"] = delta.abs().amax(1).double().cpu().numpy()
    columns["l2"] = delta.norm(dim=1).double().cpu().numpy()
    for name, flags in problem.published.items():
        columns[name] = flags.cpu().numpy()
    columns |= _faithful(parts, columns, x)
    if rows.start == 0:
        columns |= {f"probe_{name}": np.asarray(value) for name, value in parts.view.probe(problem).items()}
        noise = streams(cell["seed"], ids[:PICTURES])["score"].draws(1)
        with torch.no_grad():
            for name, images in (("clean", x), ("attacked", x_adv)):
                few = images[:PICTURES]
                columns[f"picture_{name}"] = _pixels(few)
                columns[f"picture_purified_{name}"] = _pixels(defense.purify(few, noise))
    if cell["keep_images"]:
        columns["image_attacked"] = x_adv.float().cpu().numpy()
    return columns


def _attacked(parts: Parts, problem: Problem, name: str) -> tuple[Tensor, Tensor]:
    """The attacked images and which samples failed: a crash is a recorded state, never a robust sample.

    When a chunk's gradient is not finite, its samples are attacked one by one so that only the culprits are lost.
    """
    failed = torch.zeros(len(problem.x), dtype=torch.bool)
    try:
        return parts.attack(problem).detach(), failed
    except FloatingPointError:
        x_adv = problem.x.clone()
        problem.published.clear()
        for i in range(len(problem.x)):
            alone = problem.take([i])
            try:
                x_adv[i : i + 1] = parts.attack(alone).detach()
            except FloatingPointError:
                failed[i] = True
            for name, flag in alone.published.items():
                none = flag.new_full((len(problem.x),), 0 if flag.dtype is torch.bool else -1)
                problem.published.setdefault(name, none)[i] = flag[0]
        return x_adv, failed


@torch.no_grad()
def _scored(parts: Parts, cell: dict[str, Any], x: Tensor, y: Tensor, ids: tuple[int, ...], name: str) -> Chunk:
    """Predictions and margins of the defense on fresh `score` draws, of the bare classifier, and the captions.

    Clean and attacked images meet the same score draws, which no attack has seen.
    """
    defense: Defense = parts.defense
    draws = cell["score_draws"] if defense.randomized else 1
    noise = streams(cell["seed"], ids)["score"].draws(draws)
    logits = Full(defense, cell["max_rows"]).query(x, noise)
    finite = torch.isfinite(logits).all(-1).all(0)
    if not bool(finite.all()):
        raise ValueError(
            f"purifier={cell['purifier_name']}, classifier={cell['classifier_name']}: logits of the {name} sample "
            f"{ids[int((~finite).nonzero()[0])]} are not finite: try dtype=float32 or milder settings"
        )
    columns = {
        f"{name}_prediction": logits.argmax(-1).cpu().numpy(),
        f"{name}_margin": torch.stack([-margin(each, y) for each in logits]).double().cpu().numpy(),
        f"{name}_undefended": defense.classify(x).argmax(-1).cpu().numpy(),
    }
    captions = defense.observe(x, noise.rows(0, len(x)))
    if captions is not None:
        words = (parts.dataset.classes, parts.dataset.synonyms)
        named = [names_label(c, k, *words) for c, k in zip(captions, y.tolist(), strict=True)]
        columns[f"{name}_caption"] = np.asarray(captions)
        columns[f"{name}_caption_label"] = np.asarray(named)
    return columns


@torch.no_grad()
def _damage(parts: Parts, cell: dict[str, Any], problem: Problem, x_adv: Tensor) -> np.ndarray[Any, Any]:
    """How broken each attacked image is on `select` draws that are the same for every attack and seen by none.

    A table picks the worst attack per sample by this number and scores it on the `score` draws.
    """
    full = replace(problem, view=Full(parts.defense, cell["max_rows"]))
    draws = cell["score_draws"] if parts.defense.randomized else 1
    return damage(full, x_adv, problem.stream("select").draws(draws, 0, -3)).double().cpu().numpy()


@torch.no_grad()
def _faithful(parts: Parts, columns: Chunk, x: Tensor) -> Chunk:
    """How far attacked captions lie from the clean ones, and whether a targeted attack led them where it wanted.

    CLIP scores are against the clean image on both sides: what the caption says of the true content.
    """
    if "attacked_caption" not in columns:
        return {}
    clean, attacked = (columns[f"{name}_caption"].tolist() for name in ("clean", "attacked"))
    pairs = list(zip(attacked, clean, strict=True))
    found = {f"attacked_caption_{name}": np.asarray([f(*p) for p in pairs]) for name, f in _LIKENESS.items()}
    if parts.clip is not None:
        for name, captions in (("clean", clean), ("attacked", attacked)):
            found[f"{name}_caption_clip"] = parts.clip(x, captions).double().cpu().numpy()
    if "caption_target_label" in columns:
        data, aims = parts.dataset, columns["caption_target_label"].tolist()
        hits = [reached(c, k, data.classes, data.synonyms, data.unrelated) for c, k in zip(attacked, aims, strict=True)]
        found["attacked_caption_target"] = np.asarray(hits)
    return found


_LIKENESS = {"bleu": bleu, "rouge": rouge_l}


def _image_dtype(cell: dict[str, Any]) -> torch.dtype:
    """Images and attacks are in float32 or float64; the models alone may be in bfloat16."""
    return torch.float64 if cell["dtype"] == "float64" else torch.float32


def _correct(chunk: Chunk, name: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return chunk[f"{name}_prediction"] == chunk["label"]


def _pixels(x: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return x.float().permute(0, 2, 3, 1).cpu().numpy()


# Means over samples in the summary: percent, but for CLIP's score, which keeps its paper's scale.
_CAPTION_MEANS = {"attacked_caption_bleu": 100, "attacked_caption_rouge": 100, "attacked_caption_target": 100,
                  "clean_caption_clip": 1, "attacked_caption_clip": 1}  # fmt: skip


def summarise(chunks: list[Chunk]) -> dict[str, Any]:
    """A cell's numbers, in percent, over the samples whose attack did not fail."""
    kept = np.concatenate([~chunk["failed"] for chunk in chunks])
    summary: dict[str, Any] = {"failed": int((~kept).sum()), "status": "complete" if kept.all() else "partial"}
    for name, title in (("clean", "natural"), ("attacked", "robust")):
        correct = np.concatenate([_correct(chunk, name) for chunk in chunks], axis=1).T
        undefended = np.concatenate([chunk[f"{name}_undefended"] == chunk["label"] for chunk in chunks])
        chosen = kept if name == "attacked" else np.ones_like(kept)
        if chosen.any():
            summary[title] = vars(accuracy(correct[None, chosen]))
            summary[f"undefended_{title}"] = 100 * float(undefended[chosen].mean())
        if f"{name}_caption_label" in chunks[0]:
            named = np.concatenate([chunk[f"{name}_caption_label"] for chunk in chunks])
            summary[f"caption_label_{name}"] = 100 * float(named[chosen].mean()) if chosen.any() else None
    columns = dict.fromkeys(name for chunk in chunks for name in chunk)
    for column in [name for name in columns if name == "as_published" or name.startswith("found_by_")]:
        flags = np.concatenate([chunk.get(column, np.zeros(len(chunk["id"]), bool)) for chunk in chunks])
        if kept.any():
            summary[column] = 100 * float(flags[kept].mean())
    summary["score_draws"] = int(chunks[0]["clean_prediction"].shape[0])
    for column, scale in _CAPTION_MEANS.items():
        if kept.any() and all(column in chunk for chunk in chunks):
            values = np.concatenate([chunk[column] for chunk in chunks])
            summary[column] = scale * float(values[kept if column.startswith("attacked") else slice(None)].mean())
    probed = {key: value for key, value in chunks[0].items() if key.startswith("probe_")}
    summary |= {key.removeprefix("probe_"): float(value) for key, value in probed.items()}
    for norm in ("linf", "l2"):
        summary[f"mean_{norm}"] = float(np.concatenate([chunk[norm] for chunk in chunks]).mean())
    return summary
