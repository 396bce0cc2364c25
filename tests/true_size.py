"""The papers' models at their true size without their numbers: real headers and configs, files that are holes on the disk."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lgap_bench.prior import convert
from lgap_bench.prior.ddpmpp import WEIGHTS, DDPMpp
from lgap_bench.prior.single_file import Kind

SD = {
    "stable-diffusion-v1-4": Kind(1, 4, "epsilon"),
    "stable-diffusion-2-base": Kind(2, 4, "epsilon"),
    "stable-diffusion-2-inpainting": Kind(2, 9, "epsilon"),
}


def hollow(file: Path, tensors: Mapping[str, torch.Tensor], dtype: str = "F32", size: int = 4) -> None:
    """A safetensors file with this header whose content takes no room."""
    end, entries = 0, {}
    for name, tensor in tensors.items():
        begin, end = end, end + size * tensor.numel()
        entries[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)


def clip_tokenizer(folder: Path) -> None:
    from transformers import CLIPTokenizer

    words = {f"w{k}</w>": k for k in range(49406)} | {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    CLIPTokenizer(vocab=words, merges=[], model_max_length=77).save_pretrained(folder)


def stable_diffusion(folder: Path, kind: Kind) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    for name, config in kind.configs().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(config))
    (folder / "model_index.json").write_text("{}")
    clip_tokenizer(folder / "tokenizer")
    configs = kind.networks()
    with torch.device("meta"):
        nets: dict[str, Any] = {
            "vae": AutoencoderKL.from_config(configs["vae"]),
            "unet": UNet2DConditionModel.from_config(configs["unet"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
        }
    for part, net in nets.items():
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        hollow(folder / part / f"{stem}.safetensors", net.state_dict())


def pixel(folder: Path, adm: bool) -> None:
    from diffusers import UNet2DModel

    with torch.device("meta"):
        net: Any = UNet2DModel(**convert.ADM_256) if adm else DDPMpp(**convert.DDPMPP_DEEP)
    convert._scheduler("adm" if adm else "score_sde").save_pretrained(folder / "scheduler")
    hollow(folder / "unet" / ("diffusion_pytorch_model.safetensors" if adm else WEIGHTS), net.state_dict())
    if adm:
        net.save_config(folder / "unet")
    else:
        (folder / "unet" / "config.json").write_text(json.dumps({"_class_name": "DDPMpp", **net.options}))


def transformer(folder: Path, kind: Any, config: Any, processor: Any = None) -> None:
    with torch.device("meta"):
        net = kind(config)
    config.save_pretrained(folder)
    tied = set(getattr(net, "all_tied_weights_keys", None) or ())
    hollow(folder / "model.safetensors", {k: v for k, v in net.state_dict().items() if k not in tied})
    if processor is not None:
        processor.save_pretrained(folder)


def papers_models(root: Path) -> None:
    """Every model that an experiment at paper scale names, but for RobustBench's, below `root` by its folder's old name."""
    import transformers as t

    for name, kind in SD.items():
        stable_diffusion(root / name, kind)
    pixel(root / "score_sde_cifar10", adm=False)
    pixel(root / "adm_imagenet256", adm=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{k}" for k in range(30522 - 5)), "[DEC]", "[ENC]"]
    tokenizer = t.BertTokenizer(vocab={word: k for k, word in enumerate(words)})
    blip = t.BlipConfig(vision_config={"image_size": 384}, text_config={"vocab_size": 30524})
    processor = t.BlipProcessor(t.BlipImageProcessor(), tokenizer)
    transformer(root / "blip-image-captioning-base", t.BlipForConditionalGeneration, blip, processor)
    large = {
        "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14},
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        "projection_dim": 768,
    }  # fmt: skip
    for name, given in (("clip-vit-base-patch32", {}), ("clip-vit-large-patch14", large)):
        transformer(root / name, t.CLIPModel, t.CLIPConfig(**given), t.CLIPImageProcessor())
        clip_tokenizer(root / name)
    resnet = t.ResNetConfig(out_features=["stage4"])
    detr = t.DetrConfig(backbone_config=resnet, use_timm_backbone=False)
    transformer(root / "detr-resnet-50", t.DetrForObjectDetection, detr, t.DetrImageProcessor())
    transformer(root / "rtdetr_r50vd", t.RTDetrForObjectDetection, t.RTDetrConfig(), t.RTDetrImageProcessor())
    small = t.YolosConfig(hidden_size=384, intermediate_size=1536, num_attention_heads=6, image_size=[512, 864])
    transformer(root / "yolos-small", t.YolosForObjectDetection, small, t.YolosImageProcessor())
    transformer(
        root / "superpoint", t.SuperPointForKeypointDetection, t.SuperPointConfig(), t.SuperPointImageProcessor()
    )
