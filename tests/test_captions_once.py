"""Captions are made once per image of a chunk, and the record is the same as if each had been asked for anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from cells import only_record, run
from torch import nn

from lgap_bench.captioner.blip import Blip
from lgap_bench.captioner.consensus import Consensus
from lgap_bench.captioner.seen import Seen
from lgap_bench.captioner.text import Fixed
from lgap_bench.noise import Noise
from lgap_bench.purifier.lgap import LGAP

SMALL = ["purifier=lgap", "n=4", "chunk=2", "score_draws=2", "threads=1"]
FULL = ["attack=full", "attack.steps=3", "attack.draws=2"]
ENSEMBLE = ["attack=full_ensemble", "attack.members.apgd_ce.n_iter=2", "attack.members.apgd_t.n_iter=2", "attack.members.pgd.steps=2",
            "attack.captioned.joint.steps=2", "attack.outside.blind.steps=2", "attack.outside.bpda.steps=2",
            "attack.outside.square.n_queries=4", "attack.confirm_draws=4", "threat.eps=4/255"]  # fmt: skip


@contextmanager
def described(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[bytes]]:
    """How often BLIP describes each image; the captions are its own."""
    found: Counter[bytes] = Counter()
    own = Blip.forward

    def forward(self: Blip, x: Any, noise: Noise | None = None) -> list[str]:
        found.update(image.contiguous().numpy().tobytes() for image in x)
        return own(self, x, noise)

    with monkeypatch.context() as patch:
        patch.setattr(Blip, "forward", forward)
        yield found


@pytest.mark.parametrize(
    "attack",
    [FULL, ["attack=caption", "attack.steps=3"], pytest.param(ENSEMBLE, marks=pytest.mark.slow)],
    ids=lambda words: words[0],
)
def test_no_image_of_a_cell_is_described_twice(attack, tmp_path, monkeypatch):
    words = [*SMALL, f"outputs={tmp_path}", *attack]
    run([*SMALL, f"outputs={tmp_path}", *attack, "score_draws=1"])  # its parts are asked here
    with described(monkeypatch) as found:
        run(words)
    assert len(found) > 12
    assert found.total() <= 1.05 * len(found), f"{found.total()} captions of {len(found)} images"


def test_the_record_is_that_of_captions_made_anew_each_time(tmp_path, monkeypatch):
    with described(monkeypatch) as once:
        run([*SMALL, *FULL, f"outputs={tmp_path / 'once'}"])
    with monkeypatch.context() as patch, described(patch) as anew:
        patch.setattr(Seen, "captions", lambda self, captioner, x, noise: captioner(x, noise))
        run([*SMALL, *FULL, f"outputs={tmp_path / 'anew'}"])
    first, second = (only_record(tmp_path / name) / "summary.json" for name in ("once", "anew"))
    assert first.read_bytes() == second.read_bytes()
    assert anew.total() > 1.5 * once.total(), "it was asked anew"
    assert set(anew) == set(once)


class Moody(nn.Module):
    """Its sentence hangs on the draw."""

    asked = 0

    def forward(self, x: Any, noise: Noise) -> list[str]:
        Moody.asked += len(x)
        return [f"mood {key}" for key in noise.keys]


def test_a_captioner_that_draws_is_asked_each_time(images):
    seen, x = Seen(), images(2)
    for key in (1, 2):
        assert seen.captions(Moody(), x, Noise((key, key), (0, 1), 0)) == [f"mood {key}"] * 2
    assert Moody.asked == 4
    assert seen.held == {}


def test_a_consensus_is_remembered_where_all_of_its_captioners_go_by_the_image(blip):
    assert Consensus({"a": blip}).by_image
    assert not Consensus({"a": blip, "b": Fixed("x")}).by_image
    assert not Consensus({"a": Moody()}).by_image


def test_nothing_is_remembered_outside_a_chunk(prior, blip, images, monkeypatch):
    purifier, x, noise = LGAP(prior, blip, steps=4, strength=0.5), images(2, 32), Noise((1, 2), (1, 2), 0)
    with described(monkeypatch) as found:
        for count in (2, 4):
            purifier.observe(x, noise)
            assert found.total() == count
        for _ in range(2):  # two chunks: what one has seen is not the other's
            with purifier.remembering() as seen:
                for _ in range(3):
                    captions = purifier.observe(x, noise)
                purifier(x, noise)
                assert list(seen.held.values()) == captions
            assert purifier.seen is None
        assert found.total() == 8


def test_only_what_is_new_in_a_batch_is_described_and_an_image_twice_in_it_once(prior, blip, images, monkeypatch):
    purifier, x, noise = LGAP(prior, blip, steps=4, strength=0.5), images(3, 32), Noise((1, 2, 3), (1, 2, 3), 0)
    alone = purifier.observe(x, noise)
    with described(monkeypatch) as found, purifier.remembering():
        purifier.observe(x[:2], noise.rows(0, 2))
        assert purifier.observe(x[[2, 0, 2]], noise) == [alone[2], alone[0], alone[2]]
        assert (found.total(), len(found)) == (3, 3)
        assert purifier.observe(x.double(), noise) == alone, "the same values of another type are another image"
        assert found.total() == 6


def test_the_captioners_loss_is_computed_each_time_with_its_gradient(prior, blip, images):
    purifier, x = LGAP(prior, blip, steps=4, strength=0.5), images(1, 32)
    with purifier.remembering():
        purifier.observe(x, Noise((1,), (1,), 0))
        given = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(blip.loss(given, ["a photo of a handwritten zero"]).sum(), given)
    assert gradient.abs().max() > 0
