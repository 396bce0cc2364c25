"""The captions that LGAP's authors published, through this project's metrics: `python -m scripts.authors_captions FILE [--synonyms YAML]`.

FILE is their caption_list_cifar10.json: a list of {label, caption, clean_caption: [text], adv_caption: [text]}, one entry
per CIFAR-10 test image. Which attack made the adversarial images is not recorded there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lgap_bench.metric.caption import bleu, names_label, rouge_l
from lgap_bench.report.write import as_markdown, as_text

DATASET = Path(__file__).resolve().parent.parent / "conf" / "dataset" / "cifar10.yaml"
THEIR_NAMES = {"plane": "airplane", "car": "automobile"}  # where the file's labels are not torchvision's
COLUMNS = ("class", "n", "label_clean", "label_adv", "failure", "bleu", "rouge")


def read(file: Path) -> list[tuple[str, str, str]]:
    """(class, clean caption, adversarial caption) of every entry. Raises ValueError naming the first one that differs."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is no JSON file ({error}): give the authors' caption_list_cifar10.json") from None
    entries = []
    for index, entry in enumerate(content):
        try:
            (clean,), (adversarial,) = entry["clean_caption"], entry["adv_caption"]
            entries.append((THEIR_NAMES.get(entry["label"], entry["label"]), str(clean), str(adversarial)))
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{file}: entry {index} has not a label and one caption of each kind: {entry}") from None
    return entries


def words(file: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Classes and synonyms of a YAML file that holds both, as a data set's."""
    content = yaml.safe_load(file.read_text())
    return content["classes"], content.get("synonyms") or {}


def rows(
    entries: Sequence[tuple[str, str, str]], classes: Sequence[str], synonyms: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """One row for all entries, one for chance, then one per class, in percent.

    `failure`: the share of captions without the label word among those whose clean caption has it. `bleu`, `rouge`: of the
    adversarial caption against the clean one. `chance` is the floor that these have: every image with the adversarial
    caption of the next one in the file.
    """
    unknown = sorted({label for label, _, _ in entries} - set(classes))
    if unknown:
        raise ValueError(f"label {unknown[0]} is none of the classes {', '.join(classes)}: is this a CIFAR-10 file?")
    following = [*entries[1:], *entries[:1]]
    chance = [(label, clean, other[2]) for (label, clean, _), other in zip(entries, following, strict=True)]
    groups = [
        ("all", list(entries)),
        ("chance", chance),
        *((name, [e for e in entries if e[0] == name]) for name in classes),
    ]
    return [_row(name, group, classes, synonyms) for name, group in groups if group]


def _row(
    name: str,
    group: Sequence[tuple[str, str, str]],
    classes: Sequence[str],
    synonyms: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    def named(label: str, caption: str) -> bool:
        return names_label(caption, classes.index(label), classes, synonyms)

    clean, adversarial = ([named(entry[0], entry[side]) for entry in group] for side in (1, 2))
    lost = [not after for before, after in zip(clean, adversarial, strict=True) if before]
    return {
        "class": name,
        "n": len(group),
        "label_clean": _percent(clean),
        "label_adv": _percent(adversarial),
        "failure": _percent(lost),
        "bleu": _percent([bleu(after, before) for _, before, after in group]),
        "rouge": _percent([rouge_l(after, before) for _, before, after in group]),
    }


def _percent(values: Sequence[float]) -> float | None:
    return 100 * sum(values) / len(values) if values else None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The authors' captions: label word, BLEU and ROUGE-L.")
    parser.add_argument("file", type=Path, help="caption_list_cifar10.json")
    parser.add_argument("--synonyms", type=Path, default=DATASET, help="YAML with classes and synonyms")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    found = rows(read(arguments.file), *words(arguments.synonyms))
    print((as_markdown if arguments.markdown else as_text)(found, COLUMNS))


if __name__ == "__main__":
    main()
