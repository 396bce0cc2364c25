"""Noise is a function of (seed, role, sample, restart, step, draw, tag) and of nothing else."""

from __future__ import annotations

import itertools

import pytest
import torch

from lgap_bench.noise import ROLES, Noise, Stream, derive, streams

LIKE = torch.empty(1, 3, 8, 8)


def one(
    seed: int = 0,
    role: str = "score",
    sample: int = 7,
    restart: int = 0,
    step: int = 0,
    draw: int = 0,
    tag: str = "vae",
) -> torch.Tensor:
    return Stream(seed, role, (sample,)).draws(1, restart, step, first=draw).normal(LIKE, tag)


CHANGES = [
    dict(seed=1),
    dict(seed=-1),
    dict(seed=2**32),  # torch's CPU generator keeps 32 bits of a seed
    dict(role="attack"),
    dict(role="select"),
    dict(sample=8),
    dict(sample=7 + 2**32),
    dict(restart=1),
    dict(step=1),
    dict(step=-1),
    dict(draw=1),
    dict(tag="forward"),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_each_part_of_the_key_gives_another_stream(change):
    assert torch.equal(one(), one())
    correlation = torch.corrcoef(torch.stack([one().flatten(), one(**change).flatten()]))[0, 1]
    assert correlation.abs() < 0.35, "192 independent normals correlate by 0.07 on average"


def test_no_two_keys_of_a_cell_meet():
    cell = itertools.product((0, 1), ROLES, range(6), range(4), range(-2, 6), range(4))
    keys = [Stream(seed, role, (i,)).draws(1, r, s, d).keys[0] for seed, role, i, r, s, d in cell]
    assert len(set(keys)) == len(keys)


def test_keys_that_differ_in_their_upper_half_only_draw_differently():
    """Half a million draws of one cell would often collide in 32 bits: then `attack` and `score` would meet."""
    low, high = Noise((5,), (0,), 0), Noise((5 + 2**40,), (0,), 0)
    assert not torch.equal(low.normal(LIKE, "vae"), high.normal(LIKE, "vae"))


def test_the_generator_uses_all_bits_of_its_seed(monkeypatch):
    """As above, behind the hash: two seeds that agree in their lower 32 bits."""
    seen = []
    for seed in (9, 9 + 2**32):
        monkeypatch.setattr("lgap_bench.noise.derive", lambda *_, seed=seed: seed)
        seen.append(Noise((0,), (0,), 0).normal(LIKE, "vae"))
    assert not torch.equal(*seen)


def test_derived_seeds_are_the_same_on_every_machine():
    assert derive("ab", "c") != derive("a", "bc")
    assert derive(0) != derive()
    assert derive(0, "score", 7) == 824082677376418091, "every record made so far would change"
    assert 0 <= derive(2**62) < 2**63


def test_numbers_are_the_same_on_every_machine():
    expected = torch.tensor([-1.33572, -0.816342, 1.264383])
    found = Stream(0, "score", (7,)).draws().normal(torch.empty(1, 3), "vae")[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_a_row_does_not_depend_on_the_batch_or_its_order(kind):
    ids, like = (3, 14, 15, 92, 65), torch.empty(5, 3, 4, 4)
    all_rows = getattr(Stream(0, "attack", ids).draws(), kind)(like, "vae")
    for order in ((4, 3, 2, 1, 0), (1,), (2, 0)):
        some = Stream(0, "attack", ids).take(order).draws()
        assert some.ids == tuple(ids[i] for i in order)
        assert torch.equal(getattr(some, kind)(like[: len(order)], "vae"), all_rows[list(order)])


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    untouched = torch.rand(1)
    torch.manual_seed(0)
    first = one()
    assert torch.equal(torch.rand(1), untouched)
    torch.manual_seed(99)
    assert torch.equal(one(), first)


def test_draws_are_draw_major_and_do_not_depend_on_how_many_are_asked_for():
    stream, like = Stream(3, "select", (10, 20, 30)), torch.empty(12, 2, 2)
    four = stream.draws(4, restart=1, step=2)
    rows = four.normal(like, "vae").view(4, 3, 2, 2)
    assert four.ids == (10, 20, 30) * 4
    assert len(four) == 12
    for draw, i in itertools.product(range(4), range(3)):
        alone = stream.take([i]).draws(1, restart=1, step=2, first=draw)
        assert torch.equal(alone.normal(like[:1], "vae")[0], rows[draw, i])
    assert stream.draws(2, 1, 2).keys + stream.draws(2, 1, 2, first=2).keys == four.keys
    assert four.rows(2, 5).keys == four.keys[2:5]
    assert four.rows(2, 5).ids == (30, 10, 20)
    assert four.rows(2, 5).seed == 3


def test_moments_of_normal_and_uniform():
    noise = Stream(0, "score", tuple(range(200))).draws()
    normal = noise.normal(torch.empty(200, 500, dtype=torch.float64), "vae")
    uniform = noise.uniform(torch.empty(200, 500), "start")
    assert normal.dtype == torch.float64
    assert normal.mean().abs() < 0.015
    assert (normal.var() - 1).abs() < 0.02
    assert (normal**3).mean().abs() < 0.05
    assert ((normal**4).mean() - 3).abs() < 0.15
    assert 0 <= uniform.min() < uniform.max() < 1
    assert (uniform.mean() - 0.5).abs() < 0.005
    assert (uniform.var() - 1 / 12).abs() < 0.002
    between_rows = torch.corrcoef(normal[:20]) - torch.eye(20)
    assert between_rows.abs().max() < 0.2, "rows are not independent"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_another_dtype_rounds_the_same_draw(dtype):
    rounded = Stream(0, "score", (7,)).draws().normal(LIKE.to(dtype), "vae")
    assert rounded.dtype == dtype
    assert torch.equal(rounded, one().to(dtype))


def test_streams_gives_every_role_and_takes_tensor_ids():
    made = streams(0, torch.tensor([4, 5]))
    assert set(made) == {"attack", "select", "score", "train"}
    assert made["score"] == Stream(0, "score", (4, 5))


def test_a_batch_of_another_length_and_an_unknown_role_are_refused():
    with pytest.raises(ValueError, match="noise has 2 rows, the batch has 3: repeat the images per draw"):
        Stream(0, "score", (1, 2)).draws().normal(torch.empty(3, 2), "vae")
    with pytest.raises(ValueError, match="noise role test is not one of attack, select, score"):
        Stream(0, "test", (1,))
