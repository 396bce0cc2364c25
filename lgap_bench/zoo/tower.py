"""The seeing half of the miniature's CLIP, for models that start from a pre-trained transformer as their papers' do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPModel

from lgap_bench.dataset.scenes import scenes

# CLIP's names of a layer's parts, in the words of YOLOS and of BLIP (whose query, key and value are one matrix).
YOLOS = {
    "self_attn.q_proj": "attention.attention.query",
    "self_attn.k_proj": "attention.attention.key",
    "self_attn.v_proj": "attention.attention.value",
    "self_attn.out_proj": "attention.output.dense",
    "layer_norm1": "layernorm_before",
    "layer_norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
BLIP = {"self_attn.out_proj": "self_attn.projection"}


@torch.no_grad()
def seeing(clip: Path) -> dict[str, Tensor]:
    """CLIP's vision weights, its first layer norm folded into the embeddings, which YOLOS and BLIP have none of.

    Folded by its mean effect on 200 training scenes: a start, not the same function.
    """
    vision: Any = CLIPModel.from_pretrained(clip).eval().vision_model
    tokens = vision.embeddings(2 * scenes("train").images[:200] - 1)
    state = {name: value.clone() for name, value in vision.state_dict().items()}
    gain = state["pre_layrnorm.weight"] / tokens.std(-1, unbiased=False).mean()
    state["embeddings.patch_embedding.weight"] *= gain.view(-1, 1, 1, 1)
    state["embeddings.class_embedding"] *= gain
    position = (state["embeddings.position_embedding.weight"] - tokens.mean()) * gain
    state["embeddings.position_embedding.weight"] = position + state["pre_layrnorm.bias"]
    return state


def into_yolos(model: Any, state: dict[str, Tensor]) -> None:
    """Embeddings and layers; what the detection tokens are is left to training."""
    vit, patches = model.vit, state["embeddings.position_embedding.weight"]
    with torch.no_grad():
        vit.embeddings.cls_token.copy_(state["embeddings.class_embedding"])
        vit.embeddings.position_embeddings[0, : len(patches)] = patches
        vit.embeddings.patch_embeddings.projection.weight.copy_(state["embeddings.patch_embedding.weight"])
        # Alike, as they are made, they would stay alike: nothing else tells one from another.
        vit.embeddings.detection_tokens.normal_(std=0.5)
    _copy(state, "post_layernorm", vit.layernorm)
    layers = vit.encoder.layer
    for index in range(len(layers)):
        for name, own in YOLOS.items():
            _copy(state, f"encoder.layers.{index}.{name}", layers[index].get_submodule(own))


def into_blip(model: Any, state: dict[str, Tensor]) -> None:
    """The whole vision model."""
    vision = model.vision_model
    with torch.no_grad():
        vision.embeddings.class_embedding.copy_(state["embeddings.class_embedding"])
        vision.embeddings.position_embedding.copy_(state["embeddings.position_embedding.weight"])
        vision.embeddings.patch_embedding.weight.copy_(state["embeddings.patch_embedding.weight"])
        vision.embeddings.patch_embedding.bias.zero_()
    _copy(state, "post_layernorm", vision.post_layernorm)
    for index, layer in enumerate(vision.encoder.layers):
        place = f"encoder.layers.{index}"
        for name in ("self_attn.out_proj", "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"):
            _copy(state, f"{place}.{name}", layer.get_submodule(BLIP.get(name, name)))
        for kind in ("weight", "bias"):
            parts = [state[f"{place}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            getattr(layer.self_attn.qkv, kind).data.copy_(torch.cat(parts))


def _copy(state: dict[str, Tensor], name: str, module: Any) -> None:
    module.weight.data.copy_(state[f"{name}.weight"])
    module.bias.data.copy_(state[f"{name}.bias"])
