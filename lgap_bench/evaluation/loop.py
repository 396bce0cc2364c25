"""The loop over chunks: attack, check, score with fresh draws, save. It never knows which purifier or attack it holds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgap_bench.attack.chunk_journal import ChunkJournal, Remembers
from lgap_bench.attack.journal import KEEPS_NOTHING, Journal
from lgap_bench.attack.problem import Parts, Problem
from lgap_bench.cell.config import Cell
from lgap_bench.evaluation.along import confidence
from lgap_bench.evaluation.checked import check_once
from lgap_bench.evaluation.contract import check_labels
from lgap_bench.evaluation.diagnose import gradient_columns, notes, precision_probe, probe, reach_columns
from lgap_bench.evaluation.score import attacked_wrongness, scored
from lgap_bench.evaluation.share import shared
from lgap_bench.logger.base import SILENT, Done, Loggers
from lgap_bench.noise import streams
from lgap_bench.record import PICTURES, Chunk, Record
from lgap_bench.runtime.device import Device
from lgap_bench.runtime.peak import peak

SCORED = 5  # steps after the attack: clean images, attacked ones, their damage, the gradient, the rest


def evaluate(parts: Parts, cell: Cell, record: Record, device: Device, loggers: Loggers = SILENT) -> dict[int, Chunk]:
    """Attack and score this call's share of the first n samples, chunk by chunk; finished chunks are taken from the record.

    Returns the chunks by index: per-sample columns and, for the first images, pictures. Where other workers have made the
    record whole in the meantime they may be fewer.
    """
    if cell.n > len(parts.dataset):
        raise ValueError(f"n={cell.n} is more than dataset={cell.names.dataset} has: {len(parts.dataset)} images")
    check_labels(parts, cell)
    first = _problem(parts, cell, rows_of(cell, 0), device)
    check_once(parts, cell, replace(first, tell=loggers.step), device)
    chunks: dict[int, Chunk] = {}
    began, fresh = time.monotonic(), 0
    images = sum(len(range(cell.n)[rows_of(cell, index)]) for index in cell.share)

    def make(index: int) -> Chunk:
        at, worked, purifier = time.monotonic(), time.process_time(), parts.defense.purifier
        with purifier.remembering() as seen, _journal(cell, record, index, seen, loggers) as journal:
            chunk = one_chunk(parts, cell, rows_of(cell, index), device, journal, loggers)
        chunk["seconds"] = np.asarray(round(time.monotonic() - at + journal.answered, 3))
        # On a machine that others use too the clock runs faster than the work.
        chunk["processor_seconds"] = np.asarray(round(time.process_time() - worked + journal.answered, 3))
        return {**chunk, "peak_memory_mib": np.asarray(round(peak(device), 1))}

    for index, chunk, new in shared(cell, record, lambda index: found(parts, cell, record, index), make):
        chunks[index] = chunk
        fresh += len(chunk["id"]) if new else 0
        done = sum(len(each["id"]) for each in chunks.values())
        pace = (time.monotonic() - began) / max(fresh, 1)
        loggers.chunk(Done(index, done, images, _robust_so_far(parts, list(chunks.values())), pace * (images - done)))
    return chunks


def found(parts: Parts, cell: Cell, record: Record, index: int) -> Chunk | None:
    """A finished chunk, with its images where the cell keeps them; None where it has to be computed."""
    chunk = record.chunk(index, parts.dataset.ids[rows_of(cell, index)].tolist())
    return None if chunk is None or (cell.keep_images and "image_attacked" not in chunk) else chunk


def gathered(parts: Parts, cell: Cell, record: Record, own: Mapping[int, Chunk]) -> list[Chunk] | None:
    """All chunks of the cell in their order, with those that others have made; None as long as one is missing."""
    missing = [index for left in record.missing(cell.chunks, images=cell.keep_images).values() for index in left]
    if set(missing) - own.keys():
        return None  # without reading the others for nothing
    chunks = [own.get(index) or found(parts, cell, record, index) for index in range(cell.chunks)]
    there = [chunk for chunk in chunks if chunk is not None]
    return there if len(there) == cell.chunks else None


def rows_of(cell: Cell, index: int) -> slice:
    """The samples of a chunk."""
    start = index * cell.chunk
    return slice(start, min(start + cell.chunk, cell.n))


def _journal(cell: Cell, record: Record, index: int, seen: Remembers | None, loggers: Loggers) -> Journal:
    """What keeps the calls of a chunk, so that a kill costs `save_every` seconds of them and not all."""
    if cell.save_every is None:
        return KEEPS_NOTHING
    stamp = f"chunk {index} of record {record.folder.name}"
    return ChunkJournal(record.journal(index), stamp, cell.save_every, loggers.phase, seen)


def one_chunk(parts: Parts, cell: Cell, rows: slice, device: Device, journal: Journal, loggers: Loggers) -> Chunk:
    """Everything about one run of samples."""
    problem = replace(_problem(parts, cell, rows, device), journal=journal, tell=loggers.step)
    x, ids, attack = problem.x, problem.ids, cell.names.attack
    x_adv, failed = _attacked(parts, problem)
    if attack != "none":
        parts.threat.check(x_adv, x, ids, attack)

    published = {name: flags.cpu().numpy() for name, flags in problem.published.items()}
    columns: Chunk = {"id": np.asarray(ids), "label": problem.y.cpu().numpy(), "failed": failed.cpu().numpy()}
    columns |= _several(parts, problem, rows)
    observed = {}
    for number, (name, images) in enumerate((("clean", x), ("attacked", x_adv))):
        problem.tell("scoring", 1 + number, SCORED)
        found, observed[name] = scored(parts, cell, problem, images, name)
        columns |= found
    problem.tell("scoring", 3, SCORED)
    columns["attacked_damage"] = attacked_wrongness(parts, cell, problem, x_adv)
    problem.tell("scoring", 4, SCORED)
    delta = (x_adv - x).flatten(1)
    columns["linf"] = delta.abs().amax(1).double().cpu().numpy()
    columns["l2"] = delta.norm(dim=1).double().cpu().numpy()
    columns |= {**published, **gradient_columns(parts, cell, problem), **reach_columns(parts, cell, problem, x_adv)}
    columns |= notes(problem)
    problem.tell("scoring", SCORED, SCORED)
    for measure in parts.measures:
        columns |= measure.columns(x, problem.y.tolist(), observed, published)
    if rows.start == 0:
        probed = probe(problem) if attack != "none" else {}  # what is not attacked need not have a gradient
        probed |= precision_probe(parts, cell, problem, x_adv)
        columns |= {f"probe_{name}": np.asarray(value) for name, value in probed.items()}
        columns |= _pictures(parts, cell, problem, x_adv)
    if cell.keep_images:
        columns["image_attacked"] = x_adv.float().cpu().numpy()
    return columns


def _several(parts: Parts, problem: Problem, rows: slice) -> Chunk:
    """All classes of each image, (classes, B), where it may have several; and how many objects are in it, where that is known."""
    found: Chunk = {"labels": problem.labels.T.cpu().numpy()} if problem.present else {}
    if parts.dataset.objects is not None:
        found["objects"] = np.asarray([len(each.labels) for each in parts.dataset.objects[rows]])
    return found


def _problem(parts: Parts, cell: Cell, rows: slice, device: Device) -> Problem:
    """What the attack is given: these samples, seen through the cell's view."""
    data = parts.dataset
    labels = data.labels[rows]
    captions = tuple(data.true_caption(label) for label in range(len(data.classes)))
    ids = tuple(data.ids[rows].tolist())
    places = range(len(data))[rows]
    return Problem(
        view=parts.view,
        x=_images(parts, cell, rows, device),
        y=labels.to(device.torch),
        ids=ids,
        threat=parts.threat,
        seed=cell.seed,
        captions=[data.caption_of(place) for place in places],
        class_captions=captions,
        unrelated=data.unrelated,
        task=data.task,
        present={} if data.present is None else dict(zip(ids, data.present[rows], strict=True)),
    )


def _images(parts: Parts, cell: Cell, rows: slice, device: Device) -> Tensor:
    """Images and attacks are in float32 or float64; the models alone may be in bfloat16 or float16."""
    dtype = torch.float64 if cell.dtype == "float64" else torch.float32
    # A copy: a part that writes into what it is given must not reach the data set's own storage.
    images: Tensor = parts.dataset.images[rows].to(device=device.torch, dtype=dtype, copy=True)
    return images


def _attacked(parts: Parts, problem: Problem) -> tuple[Tensor, Tensor]:
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
                empty = {torch.bool: 0, torch.int64: -1}.get(flag.dtype, torch.nan)
                none = flag.new_full((len(problem.x),), empty)
                problem.published.setdefault(name, none)[i] = flag[0]
        return x_adv, failed


@torch.no_grad()
def _pictures(parts: Parts, cell: Cell, problem: Problem, x_adv: Tensor) -> Chunk:
    """The first images as they are and as the purifier makes them, for the grid; and how sure the classifier is on the way."""
    noise = streams(cell.seed, problem.ids[:PICTURES])["score"].draws(1)
    found: Chunk = {}
    for name, images in (("clean", problem.x), ("attacked", x_adv)):
        few = images[:PICTURES]
        found[f"picture_{name}"] = _pixels(few)
        observed = parts.defense.observe(few, noise)
        found[f"picture_purified_{name}"] = _pixels(parts.defense.purify(few, noise, observed))
        if (sure := confidence(parts, problem, few, noise, observed)) is not None:
            found[f"picture_confidence_{name}"] = sure
        masks = parts.defense.purifier.masks(observed, few)
        if masks is not None:
            found[f"picture_region_{name}"] = _pixels(_tinted(few, masks))
    return found


def _tinted(x: Tensor, masks: Tensor) -> Tensor:
    """Images (B, C, H, W) with red laid over what is regenerated, masks (B, 1, H, W)."""
    red = torch.zeros_like(x)
    red[:, 0] = 1
    return torch.lerp(x, red, 0.5 * masks.to(x))


def _robust_so_far(parts: Parts, chunks: list[Chunk]) -> float:
    """Percent of the draws that were right, over the samples whose attack did not fail."""
    right = [parts.dataset.task.correct(chunk, "attacked")[:, ~chunk["failed"]].mean(0) for chunk in chunks]
    shares = np.concatenate(right)
    return 100 * float(shares.mean()) if len(shares) else float("nan")


def _pixels(x: Tensor) -> NDArray[np.float32]:
    return x.float().permute(0, 2, 3, 1).cpu().numpy()
