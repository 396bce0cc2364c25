"""Conditioned denoising: seconds per image of each part (section 5 says that run time is a challenge, and gives none).

    python -m scripts.conditioned_denoising.times [dataset=scenes] [images=8] [repeats=5] [device=auto] [any key of a cell]

One batch through detection, text and masked image, the denoising steps, the decoder and the classifier, and the whole of
the purifiers that it is compared with; in turns, one thread unless threads=... says more, medians. Times are no robustness: nothing is
recorded; the table lies in <outputs>/tables/.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lgap_bench.build import build
from lgap_bench.cell.check import check, require_files
from lgap_bench.cell.compose import resolved
from lgap_bench.noise import streams
from lgap_bench.report import write
from lgap_bench.report.page import Page, Quantity, Table
from lgap_bench.runtime.device import Device, configure, find_device
from lgap_bench.runtime.errors import one_line_errors

OWN = {"images": "8", "repeats": "5", "outputs": "outputs", "device": "auto", "dataset": "coco"}
OTHERS = ("inpaint_unmasked", "sd_img2img", "lgap", "ddpm", "diffpure", "ciidefence")
Timed = dict[str, Callable[[], object]]


def main() -> None:
    """Measure, print and write the table."""
    strange = [text for text in sys.argv[1:] if "=" not in text]
    if strange:
        raise ValueError(f"{strange[0]} is no key=value: write e.g. dataset=scenes images=16 repeats=3")
    given = dict(text.split("=", 1) for text in sys.argv[1:])
    own = {key: given.pop(key, value) for key, value in OWN.items()}
    for key in ("images", "repeats"):
        if not own[key].isdigit() or int(own[key]) == 0:
            raise ValueError(f"{key}={own[key]} is no whole number from 1 on: write {key}={OWN[key]}")
    device = find_device(own["device"])
    timed, count = _timed(
        [f"dataset={own['dataset']}", *(f"{k}={v}" for k, v in given.items())], int(own["images"]), device
    )
    spent: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(int(own["repeats"]) + 1):  # in turns; the first round warms up
        for name, function in timed.items():
            spent[name].append(_seconds(function, device))
    rows = [
        {"part": name, "per image": Quantity(1000 * median(each[1:]) / count, "ms", 1)} for name, each in spent.items()
    ]
    title = f"Conditioned denoising: time per image ({own['dataset']}, batch of {count}, {device.kind})"
    page = Page("conditioned_denoising-times", title, tables=[Table(("part", "per image"), rows)])
    files = write.export(page, Path(own["outputs"]) / "tables")
    print(write.text(page, markdown=True))
    print(*files)


@torch.no_grad()
def _timed(overrides: list[str], images: int, device: Device) -> tuple[Timed, int]:
    """What is timed: the parts of `inpaint` on what the part before has made, and other purifiers as a whole."""
    parts = _built(overrides, "inpaint", device)
    defense, data = parts.defense, parts.dataset
    own, x = defense.purifier, data.images[:images].to(device.torch)
    noise = streams(0, data.ids[:images].tolist())["score"].draws()
    observed = own.observe(x, noise)
    captions, m = own._read(observed, x)
    given = own._given(x, m, noise)
    begun = own._begin(x, given, noise)
    text = own.prior.condition(captions, own.negative_prompt, own.guidance_scale).beside(given)
    purified = own(x, noise, observed)

    def denoise() -> Tensor:
        return own.denoised(begun, text, tuple(x.shape[-2:]), noise)

    timed: Timed = {
        "detection": lambda: own.detector(x, noise),
        "text": lambda: own.prior.condition(captions, own.negative_prompt, own.guidance_scale),
        "masked image's latent": lambda: own._given(x, m, noise),
        f"{len(own.steps)} denoising steps and the decoder": denoise,
        "of these, the decoder": lambda: own.prior.decode(begun),
        "classification": lambda: defense.classify(purified),
        "inpaint, all of it": lambda: defense(x, noise),
    }
    for name in OTHERS:
        other = _built(overrides, name, device).defense
        timed[f"{name}, all of it"] = lambda other=other: other(x, noise)  # type: ignore[misc]
    return timed, len(x)


def _built(overrides: list[str], purifier: str, device: Device) -> Any:
    cell = resolved(["attack=pgd", *overrides, f"purifier={purifier}"])
    check(cell)
    require_files(cell)
    configure(cell.tf32, cell.threads or 1)
    return build(cell, device)


@torch.no_grad()
def _seconds(function: Callable[[], object], device: Device) -> float:
    wait = torch.cuda.synchronize if device.kind == "cuda" else lambda: None
    wait()
    at = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - at


if __name__ == "__main__":
    one_line_errors(main)
