"""`make bench`: what this project costs, beside plain scripts on public libraries, in one run.

    python -m scripts.bench.run [--parts pgd,bpda,...] [--out DIR] [--quick] [--threads 1] [--data DIR] [--true-size]

Writes DIR/bench.json and DIR/bench.md after every part, so that a killed run leaves what it had.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from scripts.bench.settings import QUICK, Settings
from scripts.bench.table import markdown

# Name of a part -> its module; true_size runs on request alone.
PARTS = {
    "pgd": "pgd",
    "bpda": "bpda",
    "gradient": "gradient",
    "pixel": "pixel",
    "share": "share",
    "startup": "startup",
    "growth": "growth",
    "profile": "components",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts in order."""
    given = _arguments(argv)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # before torch is imported, and for child processes
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own notes
    import torch

    from scripts.bench.timing import machine

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if given.true_size and device != "cuda":
        sys.exit("--true-size needs a CUDA device: on a CPU it would run for days")
    torch.set_num_threads(given.threads)
    settings = _settings(given, device)
    # Where files lie changes no figure and is nobody's business; the part pgd says which images it had.
    shown = {key: value for key, value in asdict(settings).items() if key != "data"}
    parts: dict[str, Any] = {}
    report = {"command": _command(given), "machine": machine(device), "settings": shown, "seconds": 0.0, "parts": parts}
    given.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for name in [*given.parts, *(["true_size"] if given.true_size else [])]:
        print(f"{name} ...", file=sys.stderr, flush=True)
        parts[name] = importlib.import_module(f"scripts.bench.{PARTS.get(name, name)}").measure(settings)
        report["seconds"] = round(time.monotonic() - began, 1)
        (given.out / "bench.json").write_text(json.dumps(report, indent=1) + "\n")
        (given.out / "bench.md").write_text(markdown(report))
    print(markdown(report))


def _settings(given: argparse.Namespace, device: str) -> Settings:
    asked = {key: getattr(given, key) for key in ("data", "repetitions", "pixel_steps")}
    chosen = {key: value for key, value in asked.items() if value is not None}
    return replace(QUICK if given.quick else Settings(), device=device, threads=given.threads, **chosen)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What this project costs, beside plain scripts on public libraries.")
    parser.add_argument("--parts", type=_parts, default=list(PARTS), help=f"of {','.join(PARTS)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"), help="folder of bench.json and bench.md")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one repetition: does it run")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of every contestant")
    parser.add_argument("--repetitions", type=int, help="how often each contestant runs (5)")
    parser.add_argument("--pixel-steps", type=int, help="reverse steps of the part pixel (100)")
    parser.add_argument("--data", type=Path, help="folder with cifar10_lossless/ (../shared/data)")
    parser.add_argument(
        "--true-size", action="store_true", help="bpda and gradient at Stable Diffusion's size; a GPU only"
    )
    return parser.parse_args(argv)


def _command(given: argparse.Namespace) -> str:
    """The call that repeats these figures, without its paths."""
    words = ["python -m scripts.bench.run"]
    words += [f"--parts {','.join(given.parts)}"] if given.parts != list(PARTS) else []
    words += [f"--{name}" for name in ("quick", "true_size") if getattr(given, name)]
    words += [f"--threads {given.threads}"] if given.threads != 1 else []
    words += [f"--repetitions {given.repetitions}"] if given.repetitions else []
    words += [f"--pixel-steps {given.pixel_steps}"] if given.pixel_steps else []
    return " ".join(words).replace("_", "-")


def _parts(text: str) -> list[str]:
    chosen = [part for part in text.split(",") if part]
    for part in chosen:
        if part not in PARTS:
            raise argparse.ArgumentTypeError(f"{part} is not a part: use some of {','.join(PARTS)}")
    return chosen


if __name__ == "__main__":
    main()
