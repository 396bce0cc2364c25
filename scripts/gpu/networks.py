"""Seconds per call and memory of every network at true size, in every precision: `python -m scripts.gpu.networks OUT.json`.

One JSON table, rewritten after every row: network, weights, precision, rows, forward and forward with gradient. A forecast
of a paper's experiment is made of it: calls of each network times seconds per call.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lgap_bench.classifier.wide_resnet import WideResNet
from lgap_bench.prior.ddpmpp import DDPMpp
from lgap_bench.runtime.files import write_json
from scripts.bench import models
from scripts.bench.timing import machine
from scripts.gpu import clock

PRECISIONS = {  # name -> dtype, TF32, torch.compile
    "float32": (torch.float32, False, False),
    "tf32": (torch.float32, True, False),
    "bfloat16": (torch.bfloat16, False, False),
    "float16": (torch.float16, False, False),
    "float16_compiled": (torch.float16, False, True),
}


@dataclass(frozen=True)
class Network:
    """A network with random weights, and what it is called with for so many rows.

    Attributes:
        build: makes it, in float32 on the CPU.
        inputs: rows, dtype, device -> its arguments; the first one is what a gradient is taken for.
        differentiated: whether attacks ever take a gradient through it.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int, torch.dtype, str], tuple[Any, ...]]
    differentiated: bool = True


def networks(quick: bool) -> dict[str, Network]:
    """Those of LGAP's release, of DiffPure and COUP on CIFAR-10, and their classifiers; `quick`: a few channels of each."""
    size, side = (models.narrow(16), 64) if quick else (models.SD_V1, 384)
    ddpm = {"nf": 16, "num_res_blocks": 1} if quick else {"nf": 128, "num_res_blocks": 8}
    latent = side // 8

    def noisy(rows: int, dtype: torch.dtype, device: str) -> tuple[Any, ...]:
        text = torch.randn(rows, 77, size.cross, device=device, dtype=dtype)
        return torch.randn(rows, 4, latent, latent, device=device, dtype=dtype), 500, text

    def pixels(edge: int) -> Callable[[int, torch.dtype, str], tuple[Any, ...]]:
        return lambda rows, dtype, device: (torch.rand(rows, 3, edge, edge, device=device, dtype=dtype),)

    def words(rows: int, dtype: torch.dtype, device: str) -> tuple[Any, ...]:
        return (torch.ones(rows, 77, dtype=torch.int64, device=device),)

    def labelled(rows: int, dtype: torch.dtype, device: str) -> tuple[Any, ...]:
        return torch.randn(rows, 3, 32, 32, device=device, dtype=dtype), 99.9

    return {
        f"Stable Diffusion 1, U-Net, {side}": Network(lambda: models.unet(size), noisy),
        f"Stable Diffusion 1, encoder, {side}": Network(lambda: models.vae(size).encoder, pixels(side)),
        f"Stable Diffusion 1, decoder, {side}": Network(
            lambda: models.vae(size).decoder, lambda *given: noisy(*given)[:1]
        ),
        "Stable Diffusion 1, text encoder": Network(lambda: models.text_model(size), words, differentiated=False),
        f"BLIP base, vision, {size.side}": Network(lambda: models.blip(size).vision_model, pixels(size.side)),
        "DDPM++, CIFAR-10": Network(
            lambda: DDPMpp(ch_mult=(1, 2, 2, 2), attn_resolutions=(16,), image_size=32, **ddpm), labelled
        ),
        "WRN-28-10, CIFAR-10": Network(lambda: WideResNet(*((10, 1) if quick else (28, 10))), pixels(32)),
    }


def rows_of(
    network: Network, name: str, precision: str, device: str, sizes: tuple[int, ...], repetitions: int
) -> Iterator[dict[str, Any]]:
    """The table's rows of one network in one precision; one that runs out of memory says so."""
    dtype, tf32, compiled = PRECISIONS[precision]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    peak = clock.matmul_peak(device, dtype, repetitions)
    module = network.build().eval().requires_grad_(False).to(device=device, dtype=dtype)
    module = module.to(memory_format=torch.channels_last)
    if compiled:
        module.compile()
    facts = {
        "network": name,
        "class": type(module).__name__,
        "weights": sum(each.numel() for each in module.parameters()),
        "precision": precision,
    }
    for rows in sizes:
        given = network.inputs(rows, dtype, device)
        try:
            found = {"forward": clock.call(lambda: forward(module, given), device, repetitions, peak)}  # noqa: B023, called at once
            if network.differentiated:
                found["gradient"] = clock.call(lambda: gradient(module, given), device, repetitions, peak)  # noqa: B023
        except torch.OutOfMemoryError:
            yield {**facts, "rows": rows, "out_of_memory": True}
            return
        yield {**facts, "rows": rows, "matmul_tflops": peak / 1e12, **found}


@torch.no_grad()
def forward(module: nn.Module, given: tuple[Any, ...]) -> Tensor:
    """One pass without a graph."""
    return _tensor(module(*given))


def gradient(module: nn.Module, given: tuple[Any, ...]) -> Tensor:
    """One pass and the gradient for its first argument."""
    first = given[0].detach().clone().requires_grad_(True)
    return torch.autograd.grad(_tensor(module(first, *given[1:])).float().sum(), first)[0]


def _tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def main() -> None:
    """Measure all, writing the table after every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true", help="a few channels, one precision, one row")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precisions = ["float32"] if given.quick else given.precisions
    sizes, repetitions = ((1,), 1) if given.quick else (tuple(given.rows), given.repetitions)
    torch.manual_seed(0)
    table: list[dict[str, Any]] = []
    for name, network in networks(given.quick).items():
        for precision in precisions:
            for row in rows_of(network, name, precision, device, sizes, repetitions):
                table.append(row)
                write_json(given.out, {"machine": machine(device), "quick": given.quick, "rows": table})
                print(json.dumps(row), flush=True)
            gc.collect()  # the network's memory, before the next one is made


if __name__ == "__main__":
    main()
