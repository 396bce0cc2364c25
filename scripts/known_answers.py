"""docs/known_answers.md: robust accuracy of a real network, sample by sample, beside what other code found on it.

python -m scripts.known_answers FOLDER [--images 32] [--only pgd20] [--outputs outputs]

FOLDER holds cifar10_lossless/ (test*.npz with images, labels, index) and known_answers/resnet18_pyautoattack.json, which says
how its answers were made. Prints a line per answer, and exits 1 where a sample differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lgap_bench.cell.compose import composed
from lgap_bench.dataset.cifar import TEST_IDS
from lgap_bench.measure import run_cell

ANSWERS = Path("known_answers") / "resnet18_pyautoattack.json"
IMAGES = "cifar10_lossless"
HEAD = "| attack | eps x 255 | images | known | measured | samples that differ |\n| --- | --- | --- | --- | --- | --- |"


@dataclass(frozen=True)
class Answer:
    """One known answer.

    Attributes:
        experiment: which of `known_answer/` measures it.
        eps: times 255; None for clean images.
        right: (n,) per official test image from 0 on, whether it was right, or right and robust.
    """

    experiment: str
    eps: str | None
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Comparison:
    """An answer beside what was measured here: `differ` are the official indices of samples that are not the same."""

    answer: Answer
    n: int
    known: float
    measured: float
    differ: tuple[int, ...]

    def line(self) -> str:
        """A row of the table."""
        differ = ", ".join(str(index) for index in self.differ) or "none"
        return f"| {self.answer.experiment} | {self.answer.eps or '–'} | {self.n} | {self.known:.2f} % | {self.measured:.2f} % | {differ} |"


def answers(folder: Path) -> list[Answer]:
    """What the file knows of attacks that are experiments here; its clean predictions are held against the labels."""
    held = json.loads((folder / ANSWERS).read_text())
    labels = json.loads((folder / IMAGES / "test_labels_all_10000.json").read_text())
    predicted = next(iter(held["clean"].values()))["pred"]
    clean = tuple(guess == label for guess, label in zip(predicted, labels, strict=False))
    return [Answer("clean", None, clean), *_attacked(held)]


def _attacked(held: Mapping[str, Any]) -> Iterator[Answer]:
    for key, found in held["pgd20"]["results"].items():
        yield Answer("pgd20", key.split("|")[-1], tuple(bool(flag) for flag in found["robust"]))
    for key, found in held["autoattack"]["results"].items():
        # The standard version begins with this attack: where nothing was left after it, that is its answer.
        broken = any(line.startswith("robust accuracy after APGD-CE: 0.00%") for line in found.get("log", ()))
        if key.split("|")[1] == "apgdce" or broken:
            yield Answer("apgd_ce", key.split("|")[-1], tuple(bool(flag) for flag in found["robust"]))


def compare(answer: Answer, folder: Path, outputs: Path, images: int | None = None) -> Comparison:
    """Measure an answer's cell, or read its record, and hold it against the answer, on the first `images` of both.

    An image that is wrong before the attack is not robust, as in the answers.
    """
    there = sum(len(np.load(file)["index"]) for file in (folder / IMAGES).glob("test*.npz"))
    n = min(len(answer.right), there, images or there)
    words = [f"experiment=known_answer/{answer.experiment}", f"dataset.files={folder / IMAGES}", f"n={n}",
             f"outputs={outputs}", *([] if answer.eps is None else [f"threat.eps={answer.eps}/255"])]  # fmt: skip
    cfg = composed(words)
    samples = run_cell(cfg, cfg.hydra.runtime.choices, words).samples()
    labels = np.asarray(samples["label"])
    right = np.asarray(samples["clean_undefended"]) == labels
    if answer.eps is not None:
        right &= np.asarray(samples["attacked_undefended"]) == labels
    index = np.asarray(samples["id"]) - TEST_IDS
    if index.tolist() != list(range(n)):
        raise ValueError(f"{folder / IMAGES} does not hold test images 0 to {n - 1}: the answers are of these")
    known = np.asarray(answer.right[:n])
    differ = tuple(index[right != known].tolist())
    return Comparison(answer, n, 100 * float(known.mean()), 100 * float(right.mean()), differ)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, help="the first so many images alone")
    parser.add_argument("--only", help="one experiment: clean, pgd20 or apgd_ce")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    args = parser.parse_args()
    if not (args.folder / ANSWERS).is_file():
        sys.exit(f"{args.folder / ANSWERS} does not exist: give the folder that holds {IMAGES} and {ANSWERS.parent}")
    print(HEAD, flush=True)
    lines = []
    for answer in answers(args.folder):
        if args.only in (None, answer.experiment):
            lines.append(compare(answer, args.folder, args.outputs, args.images))
            print(lines[-1].line(), flush=True)
    sys.exit(any(line.differ for line in lines))


if __name__ == "__main__":
    main()
