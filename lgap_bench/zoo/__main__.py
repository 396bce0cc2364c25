"""Train one component of the miniature: `python -m lgap_bench.zoo vae`. `make zoo` trains all, two at a time."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

# What a component's training leaves, below the zoo; `figures` and `scenes-figures` measure what is there.
FOLDERS = {
    "standard": "digits/standard",
    "adversarial": "digits/adversarial",
    "blip": "digits/blip",
    "vae": "digits/latent/vae",
    "unet": "digits/latent/unet",
    "pixel": "digits/pixel",
    "scenes-clip": "scenes/clip",
    "scenes-detr": "scenes/detr",
    "scenes-yolos": "scenes/yolos",
    "scenes-superpoint": "scenes/superpoint",
    "scenes-blip": "scenes/blip",
    "scenes-vae": "scenes/latent/vae",
    "scenes-unet": "scenes/latent/unet",
    "scenes-inpaint": "scenes/inpaint/unet",
}
COMPONENTS = (*FOLDERS, "figures", "scenes-figures")


def main() -> None:
    """Train the component named on the command line, or measure all of digits or scenes (`figures`)."""
    parser = argparse.ArgumentParser(prog="python -m lgap_bench.zoo", description=__doc__)
    parser.add_argument("component", choices=COMPONENTS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the zoo: digits and scenes lie there")
    parser.add_argument("--work", type=Path, default=Path("outputs/zoo"), help="where a killed training resumes from")
    arguments = parser.parse_args()
    name, out = arguments.component, arguments.out

    import torch

    # One thread: two components train side by side, and the sums come out the same on any number of cores.
    torch.set_num_threads(1)
    train = _trainings(out)[name]
    if name in FOLDERS and any((out / FOLDERS[name]).rglob("*.safetensors")):
        print(f"{name}: {out / FOLDERS[name]} holds weights already; delete that folder to train it anew", flush=True)
        return
    began = time.process_time()
    train(arguments.work)
    print(f"{name}: done in {time.process_time() - began:.0f} CPU-s", flush=True)


def _trainings(out: Path) -> dict[str, Callable[[Path], None]]:
    """What makes each component, given the folder for unfinished trainings."""
    from lgap_bench.zoo import captioner, classifiers, clip, detectors, figures, inpainting, keypoints, latent, pixel
    from lgap_bench.zoo import scene_figures as scenes

    return {
        "standard": lambda work: classifiers.train_standard(out / "digits" / "standard", work),
        "adversarial": lambda work: classifiers.train_adversarial(out / "digits" / "adversarial", work),
        "blip": lambda work: captioner.train(out / "digits" / "blip", work),
        "vae": lambda work: latent.train_vae(out / "digits" / "latent" / "vae", work),
        "unet": lambda work: latent.train_unet(out / "digits" / "latent", work),
        "pixel": lambda work: pixel.train(out / "digits" / "pixel", work),
        "figures": lambda work: figures.write_all(out / "digits"),
        "scenes-clip": lambda work: clip.train(out / "scenes" / "clip", work),
        "scenes-detr": lambda work: detectors.train_detr(out / "scenes" / "detr", work),
        "scenes-yolos": lambda work: detectors.train_yolos(out / "scenes" / "yolos", work, out / "scenes" / "clip"),
        "scenes-superpoint": lambda work: keypoints.train(out / "scenes" / "superpoint", work),
        "scenes-blip": lambda work: captioner.train_scenes(out / "scenes" / "blip", work, out / "scenes" / "clip"),
        "scenes-vae": lambda work: inpainting.train_vae(out / "scenes" / "latent" / "vae", work),
        "scenes-unet": lambda work: inpainting.train_unet(out / "scenes" / "latent", work),
        "scenes-inpaint": lambda work: inpainting.train_inpaint(
            out / "scenes" / "inpaint", work, out / "scenes" / "latent"
        ),
        "scenes-figures": lambda work: scenes.write_all(out / "scenes"),
    }


if __name__ == "__main__":
    main()
