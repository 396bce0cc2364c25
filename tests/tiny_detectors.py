"""Detectors of the true architectures at toy size, random, and loud enough to find something."""

from __future__ import annotations

from typing import Any

import torch

LABELS = ("N/A", "circle", "square", "triangle")  # as COCO's published ones, with a label that is no class
SIZE = {"height": 48, "width": 48}
SIZES = {"detr": SIZE, "yolos": SIZE, "rt_detr": {"height": 64, "width": 64}}  # RT-DETR halves five times
THRESHOLDS = {"detr": 0.3, "yolos": 0.3, "rt_detr": 0.5}  # at which the random ones find some boxes and leave some
LOUD = {"detr": (20, 2), "yolos": (20, 6), "rt_detr": (4, 2)}  # factors of the classes' and the other weights


def boxes(kind: str, threshold: float | None = None, dilation: int = 0, **more: Any) -> Any:
    """A `Boxes` of that kind of model with its image processor."""
    from lgap_bench.detector.boxes import Boxes

    return Boxes(model(kind), processor(kind), THRESHOLDS[kind] if threshold is None else threshold, dilation, **more)


def model(kind: str, seed: int = 5) -> Any:
    """A random model whose answers depend on the image."""
    torch.manual_seed(seed)
    net = {"detr": _detr, "yolos": _yolos, "rt_detr": _rt_detr}[kind]().eval()
    with torch.no_grad():
        for name, weight in net.named_parameters():  # fresh weights answer every image and every query alike
            if "query_position" in name or "detection_tokens" in name:
                weight.normal_(std=2.0)
            elif weight.dim() > 1:
                weight.mul_(LOUD[kind][0] if "class" in name else LOUD[kind][1])
    return net


def processor(kind: str) -> Any:
    import transformers

    name = {"detr": "DetrImageProcessor", "yolos": "YolosImageProcessor", "rt_detr": "RTDetrImageProcessor"}[kind]
    return getattr(transformers, name)(size=SIZES[kind])


def superpoint() -> Any:
    """A random SuperPoint model and its image processor."""
    from transformers import SuperPointConfig, SuperPointForKeypointDetection, SuperPointImageProcessor

    torch.manual_seed(6)
    config = SuperPointConfig(
        encoder_hidden_sizes=[4, 4, 8, 8], decoder_hidden_size=8, descriptor_decoder_dim=8, keypoint_threshold=0.02
    )
    net = SuperPointForKeypointDetection(config).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(std=0.4)
    return net, SuperPointImageProcessor(size=SIZE)


def _detr() -> Any:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    shared = dict(d_model=16, num_queries=6, encoder_ffn_dim=16, decoder_ffn_dim=16)
    layers = dict(encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    names = dict(id2label=dict(enumerate(LABELS)))
    return DetrForObjectDetection(
        DetrConfig(backbone_config=backbone, use_timm_backbone=False, **shared, **layers, **names)
    )


def _yolos() -> Any:
    from transformers import YolosConfig, YolosForObjectDetection

    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[48, 48],
        patch_size=8,
        num_detection_tokens=6,
        id2label=dict(enumerate(LABELS)),
    )
    return YolosForObjectDetection(config)


def _rt_detr() -> Any:
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    widths = [8, 8, 16, 16]
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=widths,
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    encoder = dict(encoder_hidden_dim=16, encoder_in_channels=widths[1:], encoder_ffn_dim=16, encoder_attention_heads=2)
    decoder = dict(decoder_layers=2, decoder_ffn_dim=16, decoder_attention_heads=2, decoder_n_points=2)
    config = RTDetrConfig(
        backbone_config=backbone,
        d_model=16,
        num_queries=6,
        num_denoising=0,
        decoder_in_channels=[16] * 3,
        id2label=dict(enumerate(LABELS)),
        **encoder,
        **decoder,
    )
    return RTDetrForObjectDetection(config)
