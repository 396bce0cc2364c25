"""The papers' noise networks: the original's numbers, and checkpoints that are refused instead of loaded wrongly."""

import json
import pickle

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from goldens import TINY_ADM, TINY_DDPMPP, empty, golden, network, state, training_state
from safetensors.torch import save_file

from lgap_bench.prior import convert, ddpmpp
from lgap_bench.prior.ddpmpp import WEIGHTS, DDPMpp, from_folder
from lgap_bench.runtime.errors import is_user_error

KINDS = ("ncsnpp", "adm")


def call(net, x, labels):
    out = net(x, labels)
    return out if isinstance(out, torch.Tensor) else out.sample


def parameters(net):
    return sum(weight.numel() for weight in net.parameters())


def refused(error):
    """The error is the user's and one line; returns it."""
    assert is_user_error(error.value)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_our_network_gives_the_originals_numbers(kind, dtype, tolerance):
    io = golden(f"{kind}_tiny.io")
    net = network(kind).to(dtype)
    out = call(net, io["x"].to(dtype), io["t"])
    torch.testing.assert_close(out.double(), io["out"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_our_network_answers_each_image_alone_and_a_number_as_label(kind):
    io = golden(f"{kind}_tiny.io")
    out = call(network(kind).double(), io["x"][1:2].double(), io["t"][1].item())
    torch.testing.assert_close(out, io["out"][1:2], rtol=1e-12, atol=1e-12)


def test_ddpmpp_labels_are_not_rounded():
    net, x = network("ncsnpp").double(), golden("ncsnpp_tiny.io")["x"][:1].double()
    assert (net(x, 87.4125) - net(x, 87.0)).abs().max() > 1e-3


def test_ddpmpp_has_second_derivatives_for_attacks_on_likelihood_maximisation():
    net = network("ncsnpp").double()
    x = golden("ncsnpp_tiny.io")["x"][:1].double()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)

    def slope(x):
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(net(x, 5.0).square().sum(), x, create_graph=True)
        return x, gradient

    point, gradient = slope(x)
    (exact,) = torch.autograd.grad((gradient * direction).sum(), point)
    h = 1e-5
    finite = (slope(x + h * direction)[1] - slope(x - h * direction)[1]).detach() / (2 * h)
    torch.testing.assert_close(exact, finite, rtol=1e-5, atol=1e-5 * finite.abs().max().item())


def test_full_size_networks_have_the_published_number_of_parameters():
    with torch.device("meta"):
        assert parameters(DDPMpp(**convert.DDPMPP_DEEP)) == 106_632_579
        assert parameters(UNet2DModel(**convert.ADM_256)) == 552_814_086


@pytest.mark.parametrize("kind, full", [("ncsnpp", DDPMpp), ("adm", UNet2DModel)])
def test_every_tensor_of_the_full_size_networks_has_one_source(kind, full):
    with torch.device("meta"):
        net = full(**(convert.DDPMPP_DEEP if kind == "ncsnpp" else convert.ADM_256))
    names = convert.score_sde_names(net) if kind == "ncsnpp" else convert.adm_names(net)
    targets = [target for entry in names.values() for target in entry.targets]
    assert sorted(targets) == sorted(net.state_dict())


@pytest.mark.parametrize("kwargs, word", [({"nf": 10}, "nf=10"), ({"image_size": 36}, "image_size=36")])
def test_ddpmpp_that_cannot_be_built_is_refused(kwargs, word):
    with pytest.raises(ValueError, match=word) as error:
        DDPMpp(**{**TINY_DDPMPP, **kwargs})
    refused(error)


def test_ddpmpp_refuses_images_of_another_size():
    with pytest.raises(ValueError, match=r"3 x 32 x 32, got 3 x 64 x 64"):
        network("ncsnpp")(torch.zeros(1, 3, 64, 64), 5.0)


# Conversion.


@pytest.mark.parametrize("bare", [False, True])
def test_score_sde_takes_the_moving_average_not_the_model(bare):
    container = training_state(state("ncsnpp"))
    container["ema"] = container["ema"]["shadow_params"] if bare else container["ema"]
    net = convert.score_sde(container, empty("ncsnpp"))
    assert not any(tensor.any() for tensor in container["model"].values())
    assert torch.equal(net.conv_in.weight, state("ncsnpp")["all_modules.2.weight"])


ONE = {"ncsnpp": "all_modules.5.Conv_0.weight", "adm": "input_blocks.3.1.qkv.weight"}


def broken(kind, how):
    """A checkpoint of this kind with one thing wrong."""
    weights, key = state(kind), ONE[kind]
    if how == "shape":
        weights[key] = weights[key][:-1]
    elif how == "missing":
        del weights[key]
    elif how == "foreign":
        weights["label_emb.weight"] = torch.zeros(1000, 128)
    return training_state(weights) if kind == "ncsnpp" else weights


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how, word", [("shape", "this network's"), ("missing", "lacks 1 "), ("foreign", "label_emb")])
def test_conversion_refuses_wrong_shapes_missing_and_foreign_tensors(kind, how, word):
    function = convert.score_sde if kind == "ncsnpp" else convert.adm
    with pytest.raises(ValueError, match=word) as error:
        function(broken(kind, how), empty(kind))
    assert ("label_emb.weight" if how == "foreign" else ONE[kind]) in refused(error)


def test_score_sde_refuses_an_average_of_another_length_or_order():
    container = training_state(state("ncsnpp"))
    shadow = container["ema"]["shadow_params"]
    last = shadow.pop()
    with pytest.raises(ValueError, match=f"ema has {len(shadow)} tensors, its model {len(shadow) + 1}") as error:
        convert.score_sde(container, empty("ncsnpp"))
    refused(error)
    shadow.insert(0, last)
    with pytest.raises(ValueError, match="this network's"):
        convert.score_sde(container, empty("ncsnpp"))


@pytest.mark.parametrize("ema", [None, {"decay": 0.9}, 3])
def test_score_sde_refuses_a_container_without_the_list(ema):
    with pytest.raises(ValueError, match="shadow_params") as error:
        convert.score_sde({**training_state(state("ncsnpp")), "ema": ema}, empty("ncsnpp"))
    refused(error)


@pytest.mark.parametrize("function", [convert.score_sde, convert.adm])
@pytest.mark.parametrize("content", [[1, 2], {"model": {"a": torch.zeros(2)}, "step": 1}, torch.zeros(2), {}])
def test_conversion_refuses_other_contents(function, content):
    with pytest.raises(ValueError, match=r"checkpoint|state dict") as error:
        function(content, empty("ncsnpp" if function is convert.score_sde else "adm"))
    refused(error)


def test_adm_query_key_and_value_are_cut_per_head():
    weights = state("adm")
    net = convert.adm(weights, empty("adm"))
    rows = weights["input_blocks.3.1.qkv.bias"].reshape(4, 3, 16)  # (head, query key value, channel)
    attention = net.down_blocks[1].attentions[0]
    for part, layer in enumerate((attention.to_q, attention.to_k, attention.to_v)):
        assert torch.equal(layer.bias, rows[:, part].reshape(-1))


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("content", ["text", "cut", "pickle", "empty", "absent", "folder", "safetensors"])
def test_files_that_are_no_checkpoint_are_refused_in_one_line_and_run_nothing(content, tmp_path, capsys):
    file = tmp_path / "checkpoint.pth"
    if content == "text":
        file.write_text("<html>Quota exceeded</html>")
    elif content == "cut":
        torch.save({"a": torch.zeros(1000)}, file)
        file.write_bytes(file.read_bytes()[:2000])
    elif content == "pickle":
        file.write_bytes(pickle.dumps({"model": Payload()}, protocol=2))
    elif content == "empty":
        file.touch()
    elif content == "folder":
        file.mkdir()
    elif content == "safetensors":
        save_file({"a": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=r"checkpoint\.pth is no ") as error:
        convert.read(file)
    refused(error)
    assert "executed" not in capsys.readouterr().out


# Folders.


@pytest.fixture
def tiny(monkeypatch):
    """The command converts the golden networks instead of the published ones."""
    monkeypatch.setattr(convert, "DDPMPP_DEEP", TINY_DDPMPP)
    monkeypatch.setattr(convert, "ADM_256", TINY_ADM)


def converted(kind, tmp_path, monkeypatch):
    """Run the command on the golden weights; returns the folder."""
    weights, file, folder = state(kind), tmp_path / "checkpoint.pth", tmp_path / "out"
    torch.save(training_state(weights) if kind == "ncsnpp" else weights, file)
    monkeypatch.setattr("sys.argv", ["convert", str(file), str(folder)])
    convert.main()
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_command_writes_a_folder_that_gives_the_originals_numbers(kind, tmp_path, monkeypatch, tiny, capsys):
    folder = converted(kind, tmp_path, monkeypatch)
    net = from_folder(folder / "unet") if kind == "ncsnpp" else UNet2DModel.from_pretrained(folder / "unet")
    io = golden(f"{kind}_tiny.io")
    torch.testing.assert_close(call(net.double(), io["x"].double(), io["t"]), io["out"], rtol=1e-12, atol=1e-12)
    assert f"{parameters(net):,} parameters" in capsys.readouterr().out
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    assert scheduler.config.variance_type == ("fixed_small" if kind == "ncsnpp" else "learned_range")
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-5, atol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pth", "out"]


def test_command_refuses_a_folder_that_exists_and_a_wrong_file_and_leaves_nothing(tmp_path, monkeypatch, tiny):
    converted("adm", tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="exists already"):
        convert.write(tmp_path / "checkpoint.pth", tmp_path / "out")
    with pytest.raises(ValueError, match=r"checkpoint\.pth: a Score SDE checkpoint holds") as error:
        convert.write(tmp_path / "checkpoint.pth", tmp_path / "other", "score_sde")
    refused(error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pth", "out"]


def test_ddpmpp_folder_round_trip_is_exact_and_frozen(tmp_path):
    net = network("ncsnpp")
    net.save(tmp_path)
    again = from_folder(tmp_path)
    assert again.config == net.config
    assert not again.training
    assert not any(weight.requires_grad for weight in again.parameters())
    x = golden("ncsnpp_tiny.io")["x"]
    assert torch.equal(again(x, 5.0), net(x, 5.0))


def test_diffusers_cannot_load_a_ddpmpp_folder(tmp_path):
    network("ncsnpp").save(tmp_path)
    with pytest.raises(OSError, match=r"safetensors|no file"):
        UNet2DModel.from_pretrained(tmp_path)


def spoil(folder, how):
    config = json.loads((folder / "config.json").read_text())
    if how == "class":
        config["_class_name"] = "UNet2DModel"
    elif how == "option":
        config["dropout"] = 0.1
    elif how == "width":
        config["nf"] = 16
    (folder / "config.json").write_text("{" if how == "json" else json.dumps(config))
    if how == "no config":
        (folder / "config.json").unlink()
    elif how == "no weights":
        (folder / WEIGHTS).unlink()
    elif how == "cut":
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])
    elif how == "lacking":
        tensors = network("ncsnpp").state_dict()
        del tensors["conv_in.bias"]
        save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize("how", ["class", "option", "width", "json", "no config", "no weights", "cut", "lacking"])
def test_ddpmpp_folder_that_is_not_whole_is_refused_in_one_line(how, tmp_path):
    network("ncsnpp").save(tmp_path)
    spoil(tmp_path, how)
    with pytest.raises(ValueError, match=r"is no DDPM\+\+ network.*prior.convert FILE") as error:
        from_folder(tmp_path)
    refused(error)


def test_time_table_stays_in_float32_and_counts_frequencies_from_1_to_1e_4():
    table = ddpmpp.frequencies(torch.tensor([0.5]), 8)
    assert table.dtype == torch.float32
    angles = 0.5 * torch.tensor([1, 10 ** (-4 / 3), 10 ** (-8 / 3), 1e-4])
    torch.testing.assert_close(table[0], torch.cat([angles.sin(), angles.cos()]))
