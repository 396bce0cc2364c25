"""A purifier's path: it begins at the noisy state and ends where `forward` does; records keep what the classifier thinks of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cells import SMALL

from lgap_bench.build import build
from lgap_bench.cell.compose import composed
from lgap_bench.cell.prepare import prepare
from lgap_bench.measure import run_cell
from lgap_bench.noise import streams
from lgap_bench.report.browser.along import draw, paths
from lgap_bench.runtime.device import CPU

PURIFIERS = {
    "lgap": [],
    "sd_img2img": [],
    "lgap_coup": [],
    "diffpure": [],
    "coup": [],
    "gdmp": [],
    "inpaint": ["dataset=scenes"],
    "inpaint, pasted": ["dataset=scenes", "purifier.paste=true"],
}


@pytest.mark.parametrize("name", PURIFIERS)
@pytest.mark.parametrize("rows", [1, 3])
def test_the_path_ends_at_the_purified_image(name: str, rows: int) -> None:
    cfg = composed([f"purifier={name.split(',')[0]}", *PURIFIERS[name], "threads=1"])
    parts = build(prepare(cfg, cfg.hydra.runtime.choices), CPU)
    purifier, data = parts.defense.purifier, parts.dataset
    x, noise = data.images[:rows], streams(0, data.ids[:rows].tolist())["score"].draws()
    with torch.no_grad():
        observed = purifier.observe(x, noise)
        path = list(purifier.path(x, noise, observed))
        purified = purifier(x, noise, observed)
    assert torch.equal(path[-1], purified)
    assert len(path) == getattr(purifier, "rounds", 1) * (len(purifier.steps) + 1)
    assert all(each.shape == x.shape and each.min() >= 0 and each.max() <= 1 for each in path)
    assert not torch.equal(path[0], path[-1])


@pytest.mark.parametrize("name", ["none", "downsample"])
def test_a_purifier_without_steps_has_no_path(name: str, tmp_path: Path) -> None:
    record = run(tmp_path, f"purifier={name}", "attack=bpda" if name != "none" else "attack=pgd")
    assert not [key for key in record.pictures() if key.startswith("confidence")]
    assert paths([(record, name)]) == []


def run(tmp_path: Path, *words: str):
    cfg = composed([*SMALL, *words, f"outputs={tmp_path}"])
    return run_cell(cfg, cfg.hydra.runtime.choices)


@pytest.mark.parametrize(
    "words", [["purifier=lgap"], ["dataset=scenes", "purifier=inpaint"]], ids=["one label", "several"]
)
def test_a_record_keeps_how_sure_the_classifier_was_on_the_way(words: list[str], tmp_path: Path) -> None:
    record = run(tmp_path, *words, "attack=bpda")
    held = record.pictures()
    clean, attacked = held["confidence_clean"], held["confidence_attacked"]
    assert clean.shape == attacked.shape == (4, clean.shape[1])
    assert np.all((clean >= 0) & (clean <= 1 + 1e-6))
    # The first is the image itself: the bare classifier knows clean ones.
    assert clean[:, 0].mean() > 0.5
    (along,) = paths([(record, "a title")])
    (axis,) = draw(along).axes
    assert len(axis.lines) == 2 * (4 + 1)
    assert np.allclose(axis.lines[4].get_ydata(), clean.mean(0))
