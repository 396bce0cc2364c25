"""A pixel prior of at most 35 M weights, trained for as long as is given: `python -m scripts.gpu.prior FOLDER --seconds 600`.

DDPM++ with half of the release's blocks and three quarters of its channels, on DDPM's linear schedule, in the folder layout that a prior reads. The
average of the weights is saved at the end, and every minute, so that a training that is cut off leaves what it had.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lgap_bench.cell.compose import composed
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.prior.ddpmpp import DDPMpp

SAVE_EVERY = 60.0  # seconds
MOST = 35e6
STEPS = 1000  # of the schedule


def network(width: int) -> DDPMpp:
    """The noise network; 34.8 M weights at width 96, trainable from Kaiming's initial weights with its last layer at zero."""
    net = DDPMpp(nf=width, ch_mult=(1, 2, 2, 2), num_res_blocks=4, attn_resolutions=(16,), image_size=32)
    torch.nn.init.zeros_(net.conv_out.weight)
    return net


def train(data: Any, folder: Path, seconds: float, width: int, batch: int, device: str) -> dict[str, float]:
    """Noise prediction (Ho et al. 2020) with mirrored images, until the time is over."""
    from diffusers import DDPMScheduler

    schedule = DDPMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False)
    alphas = schedule.alphas_cumprod.to(device)
    net = network(width).to(device).to(memory_format=torch.channels_last)
    average = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-4, weight_decay=0)
    images = data.images[: len(data)].to(device)
    generator = torch.Generator(device).manual_seed(0)
    half = torch.bfloat16 if device == "cuda" else torch.float32
    began = saved = time.monotonic()
    step, loss = 0, torch.zeros(())
    while step < 2 or time.monotonic() - began < seconds:
        loss = _loss(net, images, alphas, batch, generator, half)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        _follow(average, net, min(0.9995, (1 + step) / (10 + step)))
        step += 1
        if time.monotonic() - saved > SAVE_EVERY:
            saved = time.monotonic()
            average.save(folder / "unet")
            print(f"step {step}, loss {loss.item():.4f}, {seconds - (saved - began):.0f} s left", flush=True)
    average.save(folder / "unet")
    schedule.save_pretrained(folder / "scheduler")
    return {"steps": step, "loss": loss.item(), "seconds": time.monotonic() - began}


def _loss(
    net: DDPMpp, images: Tensor, alphas: Tensor, batch: int, generator: torch.Generator, half: torch.dtype
) -> Tensor:
    chosen = torch.randint(len(images), (batch,), generator=generator, device=images.device)
    x = 2 * images[chosen] - 1
    flipped = torch.rand(batch, 1, 1, 1, generator=generator, device=images.device) < 0.5
    x = torch.where(flipped, x.flip(-1), x)
    t = torch.randint(STEPS, (batch,), generator=generator, device=images.device)
    noise = torch.randn(x.shape, generator=generator, device=images.device)
    a = alphas[t].view(-1, 1, 1, 1)
    with torch.autocast(images.device.type, dtype=half, enabled=half != torch.float32):
        predicted = net(a.sqrt() * x + (1 - a).sqrt() * noise, t.float())
    return F.mse_loss(predicted.float(), noise)


@torch.no_grad()
def _follow(average: DDPMpp, net: DDPMpp, keep: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), [each.detach() for each in net.parameters()], 1 - keep)


def main() -> None:
    """Train, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--batch", type=int, default=256)
    given = parser.parse_args()
    if sum(each.numel() for each in network(given.width).parameters()) > MOST:
        raise SystemExit(f"--width {given.width} makes more than {MOST / 1e6:.0f} M weights: use 96")
    cfg = composed([f"dataset={given.dataset}", "dataset.split=train", "purifier=none", "attack=pgd"])
    from omegaconf import OmegaConf

    data = instantiate(OmegaConf.to_container(cfg.dataset, resolve=True))  # type: ignore[arg-type]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    found = train(data, given.folder, given.seconds, given.width, given.batch, device)
    print(f"{found['steps']} steps in {found['seconds']:.0f} s, loss {found['loss']:.4f}: {given.folder}")


if __name__ == "__main__":
    main()
