"""Train one component of the miniature: `python -m lgap_bench.zoo vae`. `make zoo` trains all, two at a time."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

COMPONENTS = ("standard", "adversarial", "blip", "vae", "unet", "pixel", "figures")


def main() -> None:
    """Train the component named on the command line, or measure all of them (`figures`)."""
    parser = argparse.ArgumentParser(prog="python -m lgap_bench.zoo", description=__doc__)
    parser.add_argument("component", choices=COMPONENTS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "digits")
    parser.add_argument("--work", type=Path, default=Path("outputs/zoo"), help="where a killed training resumes from")
    arguments = parser.parse_args()

    import torch

    from lgap_bench.zoo import captioner, classifiers, figures, latent, pixel

    # One thread: two components train side by side, and the sums come out the same on any number of cores.
    torch.set_num_threads(1)
    out: Path = arguments.out
    train = {
        "standard": lambda work: classifiers.train_standard(out / "standard", work),
        "adversarial": lambda work: classifiers.train_adversarial(out / "adversarial", work),
        "blip": lambda work: captioner.train(out / "blip", work),
        "vae": lambda work: latent.train_vae(out / "latent" / "vae", work),
        "unet": lambda work: latent.train_unet(out / "latent", work),
        "pixel": lambda work: pixel.train(out / "pixel", work),
        "figures": lambda work: figures.write_cards(out),
    }[arguments.component]
    done = {"vae": out / "latent" / "vae", "unet": out / "latent" / "unet"}.get(
        arguments.component, out / arguments.component
    )
    if arguments.component != "figures" and any(done.rglob("*.safetensors")):
        print(f"{arguments.component}: {done} holds weights already; delete that folder to train it anew", flush=True)
        return
    began = time.process_time()
    train(arguments.work)
    print(f"{arguments.component}: done in {time.process_time() - began:.0f} CPU-s", flush=True)


if __name__ == "__main__":
    main()
