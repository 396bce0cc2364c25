"""EDM's pickles: read without running anything in them, converted once, and the network's own equations."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lgap_bench.prior import convert, edm, pixel
from lgap_bench.prior.ddpmpp import DDPMpp, frequencies
from lgap_bench.prior.names import edm_names
from lgap_bench.runtime import persistent, sources, weights

TINY = {"nf": 8, "ch_mult": (2, 2, 2), "num_res_blocks": 1, "attn_resolutions": (16,), "image_size": 32}


def states(options=TINY, seed=0) -> dict[str, torch.Tensor]:
    """A state dict under EDM's names with random numbers; shapes follow from the names' entries."""
    with torch.device("meta"):
        net = DDPMpp(**options)
    ours, random = net.state_dict(), torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(entry.shape([ours[each].shape for each in entry.targets]), generator=random) / 8
        for name, entry in edm_names(net).items()
    }


def reference(state: dict[str, torch.Tensor], x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """D(x, sigma) of the paper's table 1 and figure of DDPM++, written from the equations on EDM's own names."""

    def norm(name, h):
        return F.group_norm(h, min(32, h.shape[1] // 4), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def conv(name, h):
        weight = state[f"{name}.weight"]
        return F.conv2d(h, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def block(name, h, emb):
        def resample(h):
            if name.endswith("_up"):
                return h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            return F.avg_pool2d(h, 2) if name.endswith("_down") else h

        out = conv(f"{name}.conv0", resample(F.silu(norm(f"{name}.norm0", h))))
        out = out + F.linear(emb, state[f"{name}.affine.weight"], state[f"{name}.affine.bias"])[:, :, None, None]
        out = conv(f"{name}.conv1", F.silu(norm(f"{name}.norm1", out)))
        h = (out + (conv(f"{name}.skip", resample(h)) if f"{name}.skip.weight" in state else h)) * math.sqrt(0.5)
        if f"{name}.qkv.weight" in state:
            channels = h.shape[1]
            qkv = conv(f"{name}.qkv", norm(f"{name}.norm2", h)).reshape(len(h), channels, 3, -1)
            q, k, v = qkv.unbind(2)
            heat = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(channels)).softmax(2)
            a = torch.einsum("nqk,nck->ncq", heat, v).reshape(h.shape)
            h = (conv(f"{name}.proj", a) + h) * math.sqrt(0.5)
        return h

    spread = (sigma**2 + 0.25).sqrt()
    c_skip, c_out, c_in, c_noise = 0.25 / spread**2, sigma * 0.5 / spread, 1 / spread, sigma.log() / 4
    emb = frequencies(c_noise.float(), state["map_layer0.weight"].shape[1]).to(x.dtype)
    for layer in ("map_layer0", "map_layer1"):
        emb = F.silu(F.linear(emb, state[f"{layer}.weight"], state[f"{layer}.bias"]))
    wide = [each[:, None, None, None] for each in (c_in, c_skip, c_out)]
    h, skips = conv("enc.32x32_conv", x * wide[0]), []
    skips.append(h)
    for name in ("32x32_block0", "16x16_down", "16x16_block0", "8x8_down", "8x8_block0"):
        h = block(f"enc.{name}", h, emb)
        skips.append(h)
    for name in ("8x8_in0", "8x8_in1", "8x8_block0", "8x8_block1", "16x16_up", "16x16_block0", "16x16_block1"):
        h = block(f"dec.{name}", torch.cat([h, skips.pop()], 1) if "block" in name else h, emb)
    for name in ("32x32_up", "32x32_block0", "32x32_block1"):
        h = block(f"dec.{name}", torch.cat([h, skips.pop()], 1) if "block" in name else h, emb)
    out = conv("dec.32x32_aux_conv", F.silu(norm("dec.32x32_aux_norm", h)))
    return wide[1] * x + wide[2] * out


class Persistent:
    """An object as the original decorator writes it: its source and its state, for a loader that executes the source."""

    def __init__(self, class_name: str, **state) -> None:
        self.class_name, self.given = class_name, state

    def __reduce__(self):
        source = "raise SystemExit('the source in the file was executed')"
        meta = sys.modules["dnnlib.util"].EasyDict(
            type="class", version=6, module_src=source, class_name=self.class_name, state=self.given
        )
        return (sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,))


@pytest.fixture
def originals(monkeypatch):
    """The names that the file's pickle refers to, as they are called where it was written."""

    class EasyDict(dict):
        pass

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the original loader was called")

    EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    for module, held in (("dnnlib.util", EasyDict), ("torch_utils.persistence", _reconstruct_persistent_obj)):
        parent = types.ModuleType(module.split(".")[0])
        child = types.ModuleType(module)
        setattr(child, held.__name__, held)
        monkeypatch.setitem(sys.modules, parent.__name__, parent)
        monkeypatch.setitem(sys.modules, module, child)


def held(state: dict[str, torch.Tensor]) -> Persistent:
    """The network as nested persistent objects, its levels in torch's own ModuleDict."""

    def module(children: dict) -> Persistent:
        own = {name: nn.Parameter(child) for name, child in children.items() if isinstance(child, torch.Tensor)}
        inner = {name: module(child) for name, child in children.items() if isinstance(child, dict)}
        return Persistent(
            "UNetBlock",
            training=False,
            _parameters=OrderedDict(own),
            _buffers=OrderedDict(resample_filter=torch.ones(1, 1, 2, 2) / 4, none=None),
            _modules=OrderedDict(inner),
            _non_persistent_buffers_set=set(),
            skip_scale=np.sqrt(0.5),
        )

    tree: dict = {}
    for name, tensor in state.items():
        *path, leaf = name.replace("enc.", "enc|").replace("dec.", "dec|").replace("|", ".").split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = tensor
    sides = {}
    for side in ("enc", "dec"):
        levels = nn.ModuleDict()
        levels.__dict__["_modules"] = OrderedDict((name, module(child)) for name, child in tree.pop(side).items())
        sides[side] = levels
    inner = {name: module(child) for name, child in tree.items()} | sides
    inner["map_augment"] = module({"weight": torch.zeros(8, 9)})
    return Persistent("SongUNet", _parameters=OrderedDict(), _buffers=OrderedDict(), _modules=OrderedDict(inner))


def pickled(state, network="SongUNet", outer="EDMPrecond", **changes) -> bytes:
    net = held(state)
    net.class_name = network
    given = {"sigma_data": 0.5, "label_dim": 0, "sigma_max": float("inf"), **changes}
    whole = Persistent(
        outer, _parameters=OrderedDict(), _buffers=OrderedDict(), _modules=OrderedDict(model=net), **given
    )
    return pickle.dumps({"ema": whole, "loss_fn": Persistent("EDMLoss", P_mean=-1.2), "dataset_kwargs": {"path": "x"}})


@pytest.fixture
def file(tmp_path, monkeypatch, originals) -> Path:
    monkeypatch.setattr(convert, "EDM_CIFAR", TINY)
    (tmp_path / "edm.pkl").write_bytes(pickled(states()))
    return tmp_path / "edm.pkl"


def test_the_noise_is_the_papers_denoisers(file):
    prior = pixel.load(str(file))
    unet = prior.unet.double()
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for t in (0.002, 0.1, 0.7):
        a = math.exp(-9.95 * t**2 - 0.1 * t)
        sigma = torch.full((3,), math.sqrt((1 - a) / a), dtype=torch.float64)
        y = x / math.sqrt(a)
        expected = (y - reference({n: v.double() for n, v in states().items()}, y, sigma)) / sigma[:, None, None, None]
        torch.testing.assert_close(
            unet(x, torch.tensor(1000 * t - 1, dtype=torch.float64)), expected, rtol=1e-12, atol=1e-12
        )
        assert prior.label(t) == 1000 * t - 1


def test_the_time_table_is_edms_up_to_float32():
    c_noise = torch.tensor([-1.1, 0.3])
    angles = c_noise[:, None] * (1 / 10000) ** (torch.arange(64) / 63)
    torch.testing.assert_close(frequencies(c_noise, 128), torch.cat([angles.sin(), angles.cos()], 1), rtol=0, atol=3e-7)


def test_the_discrete_schedule_is_the_sdes(file):
    prior = pixel.load(str(file))
    for k in (0, 99, 999):
        t = (k + 1) / 1000
        assert prior.alpha(k) == pytest.approx(math.exp(-9.95 * t**2 - 0.1 * t), rel=1e-9)


def test_the_full_size_network_has_a_source_for_every_tensor():
    with torch.device("meta"):
        net = DDPMpp(**convert.EDM_CIFAR)
    targets = [target for entry in edm_names(net).values() for target in entry.targets]
    assert sorted(targets) == sorted(net.state_dict())


def test_it_is_converted_once_and_both_checksums_are_kept(file, monkeypatch):
    first = pixel.load(str(file)).state_dict()
    (proof,) = (sources.cache_home() / "converted").glob(f"{weights.sha256(file)[:24]}*/converted.json")
    kept = json.loads(proof.read_text())
    assert kept["sha256"] == weights.sha256(file)
    assert kept["files"]["unet/ddpmpp.safetensors"] == weights.sha256(proof.parent / "unet" / "ddpmpp.safetensors")
    monkeypatch.setattr(convert, "read", None)  # a second conversion would need it
    assert all(torch.equal(tensor, first[name]) for name, tensor in pixel.load(str(file)).state_dict().items())
    changed = proof.parent / "unet" / "ddpmpp.safetensors"
    changed.write_bytes(changed.read_bytes()[:-4] + b"abcd")
    with pytest.raises(ValueError, match="is not what was converted: delete"):
        pixel.load(str(file))


class Payload:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


def inside(content: object) -> object:
    """An object whose pickle hands these bytes to torch's own loader of a storage, as a tensor's does."""

    class Storage:
        def __reduce__(self):
            return (torch.storage._load_from_bytes, (content,))

    return Storage()


def torch_saved(what: object) -> bytes:
    stream = io.BytesIO()
    torch.save(what, stream)
    return stream.getvalue()


@pytest.mark.parametrize("level", ["outer", "inner", "deep", "plain pickle inside"])
def test_a_planted_payload_is_refused_at_both_levels_and_nothing_is_run(level, tmp_path, originals):
    bad = Payload(tmp_path / "executed")
    content = {
        "outer": lambda: {"ema": bad},
        "deep": lambda: {"ema": Persistent("EDMPrecond", _modules={"model": bad})},
        "inner": lambda: {"ema": inside(torch_saved(bad))},
        "plain pickle inside": lambda: {"ema": inside(pickle.dumps(bad))},
    }[level]()
    file = tmp_path / "bad.pkl"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"bad\.pkl is no EDM pickle .*nothing was run") as error:
        pixel.load(str(file))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()
    pickle.loads(file.read_bytes()[:0] or pickle.dumps(bad))  # the payload works where nobody looks
    assert (tmp_path / "executed").exists()


def wrong(how: str) -> bytes:
    state = states()
    name = "enc.16x16_block0.qkv.weight"
    if how == "lacks 1":
        del state[name]
    elif how == "stranger":
        state["enc.32x32_block0.stranger"] = torch.zeros(3)
    elif how == "this network's":
        state[name] = state[name].transpose(0, 1).contiguous()
    changes = {
        "VPPrecond": {"outer": "VPPrecond"},
        "DhariwalUNet": {"network": "DhariwalUNet"},
        "class labels": {"label_dim": 10},
    }
    return pickled(state, **changes.get(how, {}))


@pytest.mark.parametrize("how", ["lacks 1", "stranger", "this network's", "VPPrecond", "DhariwalUNet", "class labels"])
def test_another_network_is_named_and_leaves_nothing(how, file):
    file.write_bytes(wrong(how))
    with pytest.raises(ValueError, match=how) as error:
        pixel.load(str(file))
    assert str(error.value).startswith(f"weights={file}: {file}: ")
    assert "\n" not in str(error.value)
    assert not list((sources.cache_home() / "converted").glob(f"{weights.sha256(file)[:24]}*"))


@pytest.mark.parametrize("content, said", [(b"<html>", "HTML"), (b"", "0 bytes"), (b"\x80\x04K", "no whole pickle")])
def test_a_file_that_is_no_pickle_is_one_line(content, said, file):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        pixel.load(str(file))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"no whole pickle|is not on the list"):
        persistent.read(file)


def test_a_cache_that_cannot_be_written_is_one_line(file, monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("LGAP_BENCH_CACHE", str(tmp_path / "taken"))
    with pytest.raises(ValueError, match=r"cannot be written.*set LGAP_BENCH_CACHE"):
        pixel.load(str(file))


def test_labels_of_a_batch_may_differ(file):
    unet = edm.EDM(pixel.load(str(file)).unet.net.double())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    both = unet(x, torch.tensor([10.0, 400.5]))
    torch.testing.assert_close(both[1:], unet(x[1:], 400.5), rtol=1e-12, atol=1e-12)
