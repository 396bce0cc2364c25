"""Stable Diffusion in one file: the same model as its folder, told apart by its header, refused where it is another."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lgap_bench.prior import latent, single_file
from lgap_bench.prior.single_file import Kind

# diffusers' name of a block's part -> the original's; the inverse of what diffusers itself translates.
UNET = {
    "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.", "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.", "conv_out.": "out.2.",
}  # fmt: skip
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def unet_name(name: str, layers: int) -> str:
    for ours, theirs in UNET.items():
        if name.startswith(ours):
            return name.replace(ours, theirs, 1)
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name):
        way, i, kind, j, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if way == "down":
            prefix = f"input_blocks.{(layers + 1) * i + j + 1}"
            place = {
                "resnets": f"{prefix}.0",
                "attentions": f"{prefix}.1",
                "downsamplers": f"input_blocks.{(layers + 1) * (i + 1)}.0",
            }[kind]
        else:
            number = (layers + 1) * i + j
            last = (layers + 1) * i + layers
            place = {
                "resnets": f"output_blocks.{number}.0",
                "attentions": f"output_blocks.{number}.1",
                "upsamplers": f"output_blocks.{last}.{1 if i == 0 else 2}",
            }[kind]
        rest = rest.replace("conv.", "op." if kind == "downsamplers" else "conv.", 1) if "samplers" in kind else rest
    else:
        match = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name)
        assert match, name
        kind, rest = match[1], match[3]
        place = f"middle_block.{2 * int(match[2]) if kind == 'resnets' else 1}"
    if kind == "resnets":
        for ours, theirs in RESNET.items():
            rest = rest.replace(ours, theirs)
    return f"{place}.{rest}"


def vae_name(name: str, levels: int) -> str:
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r"encoder.down.\1.block.\2.", name)
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample.", name)
    name = re.sub(
        r"decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.",
        lambda m: f"decoder.up.{levels - 1 - int(m[1])}.block.{m[2]}.",
        name,
    )
    name = re.sub(
        r"decoder\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"decoder.up.{levels - 1 - int(m[1])}.upsample.", name
    )
    name = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", name)
    name = name.replace("mid_block.attentions.0.", "mid.attn_1.").replace("conv_shortcut", "nin_shortcut")
    for ours, theirs in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
        name = name.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
    return name.replace("conv_norm_out", "norm_out")


def original(
    parts: dict[str, dict[str, torch.Tensor]], kind: Kind, layers: int = 2, levels: int = 4
) -> dict[str, torch.Tensor]:
    """A model's tensors under the names of one file."""
    found = {f"model.diffusion_model.{unet_name(name, layers)}": tensor for name, tensor in parts["unet"].items()}
    for name, tensor in parts["vae"].items():
        square = "attentions" in name and name.endswith("weight") and tensor.dim() == 2
        found[f"first_stage_model.{vae_name(name, levels)}"] = tensor[:, :, None, None] if square else tensor
    if kind.version == 1:
        words = {
            f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in parts["text_encoder"].items()
        }
        return {
            **found,
            **words,
            "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
            "betas": torch.ones(1000),
        }
    return {**found, **openclip(parts["text_encoder"]), "betas": torch.ones(1000)}


def openclip(text: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    base = "cond_stage_model.model."
    found = {
        f"{base}token_embedding.weight": text["embeddings.token_embedding.weight"],
        f"{base}positional_embedding": text["embeddings.position_embedding.weight"],
        f"{base}ln_final.weight": text["final_layer_norm.weight"],
        f"{base}ln_final.bias": text["final_layer_norm.bias"],
        f"{base}logit_scale": torch.ones(()),
    }
    inner = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    for layer in {name.split(".")[2] for name in text if name.startswith("encoder.layers.")}:
        ours, theirs = f"encoder.layers.{layer}.", f"{base}transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            found |= {f"{theirs}{new}.{kind}": text[f"{ours}{old}.{kind}"] for old, new in inner.items()}
            found[f"{theirs}attn.in_proj_{kind}"] = torch.cat(
                [text[f"{ours}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            )
    return found


FULL = {
    "1.x": (Kind(1, 4, "epsilon"), 859_520_964, "sd-v1-4.safetensors"),
    "1.x inpainting": (Kind(1, 9, "epsilon"), 859_535_364, "sd-v1-5-inpainting.safetensors"),
    "2 base": (Kind(2, 4, "epsilon"), 865_910_724, "512-base-ema.safetensors"),
    "2.1 v": (Kind(2, 4, "v_prediction"), 865_910_724, "v2-1_768-ema-pruned.safetensors"),
    "2 inpainting": (Kind(2, 9, "epsilon"), 865_925_124, "512-inpainting-ema.safetensors"),
}


def networks(kind: Kind):
    """The networks of a kind, without weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    configs = kind.networks()
    with torch.device("meta"):
        return {
            "vae": AutoencoderKL.from_config(configs["vae"]),
            "unet": UNet2DConditionModel.from_config(configs["unet"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
        }


@pytest.mark.parametrize("name", FULL)
def test_every_tensor_of_the_published_sizes_has_its_place(name, tmp_path):
    kind, count, _ = FULL[name]
    nets = networks(kind)
    assert sum(weight.numel() for weight in nets["unet"].parameters()) == count
    assert sum(weight.numel() for weight in nets["vae"].parameters()) == 83_653_863
    tensors = original({part: dict(net.state_dict()) for part, net in nets.items()}, kind)
    for part, config in kind.networks().items():
        held = single_file._named(part, config, tensors, tmp_path / "x")
        assert {key: value.shape for key, value in held.items()} == {
            key: value.shape for key, value in nets[part].state_dict().items()
        }


@pytest.fixture
def small(monkeypatch, latent_folder):
    """Small networks of the published form, and a tokenizer where one would be found."""
    few = {"block_out_channels": [32, 64], "norm_num_groups": 8}
    monkeypatch.setattr(
        single_file,
        "VAE",
        {
            **single_file.VAE,
            **few,
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2,
        },
    )
    blocks = {
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    }
    monkeypatch.setattr(single_file, "UNET", {**single_file.UNET, **few, **blocks, "attention_head_dim": 2})
    monkeypatch.setattr(single_file, "SECOND", {**single_file.SECOND, "attention_head_dim": [2, 4]})
    words = len(__import__("transformers").CLIPTokenizer.from_pretrained(latent_folder / "tokenizer"))
    text = {"vocab_size": words, "num_hidden_layers": 2, "intermediate_size": 64}
    monkeypatch.setattr(single_file, "TEXT", {**single_file.TEXT, **text})
    monkeypatch.setattr(
        single_file, "SECOND_TEXT", {**single_file.SECOND_TEXT, **text, "vocab_size": words + 1}
    )  # its padding, "!"
    monkeypatch.setattr(single_file, "tokenizer_folder", lambda: latent_folder / "tokenizer")


def saved(name: str, folder: Path) -> tuple[Path, dict]:
    """A file of a kind with random numbers, and what its networks hold."""
    kind, _, file = FULL[name]
    torch.manual_seed(0)
    parts = {
        part: {key: torch.randn(value.shape) / 8 for key, value in net.state_dict().items()}
        for part, net in networks(kind).items()
    }
    save_file(
        {key: value.contiguous().clone() for key, value in original(parts, kind, levels=2).items()}, folder / file
    )
    return folder / file, parts


@pytest.mark.parametrize("name", FULL)
def test_one_file_is_the_model_that_its_folder_is(name, small, tmp_path):
    file, parts = saved(name, tmp_path)
    latent.examine(str(file))
    prior = latent.load(str(file))
    assert prior.prediction == FULL[name][0].prediction
    for part, tensors in parts.items():
        own = getattr(prior, part).state_dict()
        assert own.keys() == tensors.keys()
        assert all(torch.equal(own[key], tensors[key]) for key in own), part


def test_of_a_file_with_both_the_moving_average_is_taken(small, tmp_path):
    file, parts = saved("1.x", tmp_path)
    tensors = load_file(file)
    for name in [name for name in tensors if name.startswith("model.diffusion_model.")]:
        tensors["model_ema." + "".join(name.split(".")[1:])] = tensors[name].clone()
        tensors[name] = torch.zeros_like(tensors[name])
    save_file(tensors, file)
    assert torch.equal(latent.load(str(file)).unet.state_dict()["conv_in.weight"], parts["unet"]["conv_in.weight"])


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda t: t.pop("model.diffusion_model.out.2.weight"),
            "of its unet the file lacks 1 tensors, the first is conv_out.weight",
        ),
        (
            lambda t: t.update({"first_stage_model.encoder.conv_in.weight": torch.zeros(3, 32, 3, 3)}),
            "of its vae the file has in another shape 1",
        ),
        (lambda t: t.pop("model.diffusion_model.input_blocks.0.0.weight"), "is no Stable Diffusion 1 or 2 in one file"),
        (lambda t: [t.pop(k) for k in list(t) if "cond_stage" in k], "of its text_encoder the file lacks"),
    ],
)
def test_another_file_is_named_and_leaves_nothing(change, said, small, tmp_path):
    file, _ = saved("1.x", tmp_path)
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    for call in (latent.load, latent.examine):
        with pytest.raises(ValueError, match=said) as error:
            call(str(file))
        assert "\n" not in str(error.value)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="bytes instead of"):
        latent.load(str(file))


def test_what_a_second_file_predicts_has_to_be_said_where_its_name_does_not(small, tmp_path):
    file, _ = saved("2.1 v", tmp_path)
    shutil.move(file, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=r"set prior\.prediction="):
        latent.load(str(tmp_path / "mine.safetensors"))
    for prediction in ("epsilon", "v_prediction"):
        assert latent.load(str(tmp_path / "mine.safetensors"), prediction=prediction).prediction == prediction


def test_a_folder_says_itself_what_it_predicts(latent_folder):
    with pytest.raises(ValueError, match="leave it null"):
        latent.load(str(latent_folder), prediction="v_prediction")


def test_without_a_tokenizer_the_command_that_gets_one_is_named(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ValueError, match="lgap-bench fetch openai/clip-vit-large-patch14"):
        single_file.tokenizer_folder()
