"""`lgap-bench robustbench RECORD`: a finished cell as RobustBench writes a model down, or as metrics of a model card.

RobustBench keeps one JSON file per model, model_info/<data set>/<threat>/<model>.json: accuracies in percent and budgets
are text. Its leaderboard takes no random defense; what is written here says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lgap_bench.cell.about import about
from lgap_bench.cell.values import fraction
from lgap_bench.record import Record
from lgap_bench.verify.archive import opened

USAGE = """lgap-bench robustbench <record folder or archive> [name=...] [link=...] [authors=...] [venue=...] [architecture=...]
                       [additional_data=true] [reported=70.69] [card=true]

Prints the record as RobustBench's model_info JSON, or with card=true as the metrics of a Hugging Face model card. docs/verify.md
"""
THREATS = {  # data set -> norm -> the budget of its leaderboard, and how many images it evaluates
    "cifar10": ({"linf": 8 / 255, "l2": 0.5}, 10_000),
    "cifar100": ({"linf": 8 / 255}, 10_000),
    "imagenet": ({"linf": 4 / 255}, 5_000),
}
AUTOATTACK = "autoattack_standard"
TEXTS = ("name", "link", "authors", "venue", "architecture", "reported")
LEVELS = 255


def main() -> None:
    """Print the record that the command line names."""
    words = sys.argv[1:]
    if not words or words[0] in ("--help", "-h"):
        print(USAGE, end="")
        return
    own = _words(words[1:])
    with opened(Path(words[0])) as record:
        record.check()
        if own.pop("card", False):
            print(card(record, own), end="")
        else:
            print(json.dumps(model_info(record, own), indent=2))


def model_info(record: Record, own: Mapping[str, Any]) -> dict[str, Any]:
    """RobustBench's fields, and `deterministic`. `own`: what no record knows, `link`, `venue` and so on.

    The robust accuracy is `autoattack_acc` where the whole standard AutoAttack found it, else `external`. Raises ValueError for
    a record without a robust accuracy.
    """
    summary, verdict = record.summary(), record.verdict()[0]
    if "robust" not in summary:
        raise ValueError(f"record {record.folder.name}: the attack failed on every sample, there is no number to write")
    robust = f"{summary['robust']['mean']:.2f}"
    deterministic = summary["score_draws"] == 1
    whole = summary["attack_name"] == AUTOATTACK and deterministic
    return {
        "link": own.get("link", ""),
        "name": own.get("name", _title(summary)),
        "authors": own.get("authors", ""),
        "additional_data": own.get("additional_data"),
        "number_forward_passes": 1,
        "dataset": summary["dataset_name"],
        "venue": own.get("venue", ""),
        "architecture": own.get("architecture", _architecture(record, summary)),
        "eps": budget(summary),
        "clean_acc": f"{summary['natural']['mean']:.2f}",
        "reported": own.get("reported"),
        "autoattack_acc" if whole else "external": robust,
        "deterministic": deterministic,
        "footnote": footnote(record, summary, verdict),
        "unreliable": verdict != "sound",
    }


def footnote(record: Record, summary: Mapping[str, Any], verdict: str) -> str:
    """How the number was found, and why RobustBench's leaderboard would not take it."""
    low, high = summary["robust"]["low"], summary["robust"]["high"]
    draws = summary["score_draws"]
    parts = [
        f"{summary['attack_name']} (view {summary['view']}) on {summary['n']} images, 95 % interval {low:.1f} to {high:.1f}"
    ]
    if draws > 1:
        parts.append(f"mean over {draws} draws per image")
    parts.append(f"verdict {verdict}; lgap-bench {record.run().get('lgap-bench')}, record {record.folder.name}")
    if why := ineligible(summary):
        parts.append(f"Not leaderboard-eligible: {', '.join(why)}")
    return ". ".join(parts) + "."


def ineligible(summary: Mapping[str, Any]) -> list[str]:
    """Which of the leaderboard's conditions a cell does not meet, in words; no list of all of them."""
    found = ["the defense is randomized"] if summary["score_draws"] > 1 else []
    name, norm = summary["dataset_name"], summary["norm"]
    budgets, images = THREATS.get(name, ({}, 0))
    if not budgets:
        return [*found, f"{name} is none of its data sets"]
    eps = fraction(summary["eps"], "threat.eps")
    if norm not in budgets or abs(budgets[norm] - eps) > 1e-6:
        found.append(f"{norm} {budget(summary)} is none of its threats there")
    if summary["n"] < images:
        found.append(f"{summary['n']} of {images} images")
    if summary["attack_name"] != AUTOATTACK:
        found.append("not attacked by the standard AutoAttack")
    return found


def budget(summary: Mapping[str, Any]) -> str:
    """`8/255` for linf, however it was spelled; `0.5` for l2."""
    eps = fraction(summary["eps"], "threat.eps")
    level = round(eps * LEVELS)
    if summary["norm"] == "linf" and level and abs(eps * LEVELS - level) < 1e-6:
        return f"{level}/{LEVELS}"
    return f"{eps:g}"


def card(record: Record, own: Mapping[str, Any]) -> str:
    """The YAML head of a Hugging Face model card: both accuracies as metrics of one result."""
    info, summary = model_info(record, own), record.summary()
    mark = {"sound": "", "upper bound": ", at most"}.get(record.verdict()[0], ", invalid")
    attack = f"{summary['attack_name']}, view {summary['view']}, {summary['norm']} {info['eps']}{mark}"
    metrics = [
        {"type": "accuracy", "name": title, "value": round(summary[key]["mean"], 2), "verified": False}
        for key, title in (("natural", "Natural accuracy (%)"), ("robust", f"Robust accuracy (%): {attack}"))
    ]
    name, split = summary["dataset_name"], record.config()["dataset"].get("split", "test")
    dataset = {"type": name, "name": name, "split": split}
    result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}
    head = {"model-index": [{"name": info["name"], "results": [result]}]}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)}---\n\n{info['footnote']}\n"


def _title(summary: Mapping[str, Any]) -> str:
    names = [summary["purifier_name"], summary["classifier_name"]]
    return " + ".join(name for name in names if name != "none")


def _architecture(record: Record, summary: Mapping[str, Any]) -> str:
    """The classifier's, behind the purifier's name."""
    network = about(record.config().get("classifier"), "architecture", summary["classifier_name"])
    return network if summary["purifier_name"] == "none" else f"{network} behind {summary['purifier_name']}"


def _words(words: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key in ("card", "additional_data") and value in ("true", "false"):
            found[key] = value == "true"
        elif key in TEXTS and value:
            found[key] = value
        else:
            raise ValueError(
                f"{word} is not a key of robustbench: use {', '.join(f'{name}=...' for name in TEXTS)}, additional_data=true, card=true"
            )
    return found
