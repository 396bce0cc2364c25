"""A paper's table: its published values beside what was measured, row by row, from records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lgap_bench import CONF
from lgap_bench.metric.accuracy import accuracy
from lgap_bench.record import Record, records
from lgap_bench.report.table import merge

COLUMNS = (
    "row", "paper_natural", "paper_robust", "natural", "robust", "interval", "any_of_k", "natural_any_of_k", "attack",
    "view", "n", "seeds", "differs",
)  # fmt: skip
EXPORTED = (
    *COLUMNS[:5], "robust_low", "robust_high", "natural_low", "natural_high", *COLUMNS[6:], "eps", "norm", "dataset",
    "purifier", "classifier", "captioner", "train", "finetune", "architecture", "score_draws", "majority_of_k",
    "caption_label_clean", "caption_label_attacked", "as_published", "failed", "status", "source", "records", "seconds",
)  # fmt: skip
# Overrides that change no number, or that a column of its own shows.
SHOWN = (
    "experiment",
    "dataset",
    "outputs",
    "threads",
    "seed",
    "device",
    "max_rows",
    "keep_images",
    "data",
    "checkpoints",
)


def load(name: str) -> dict[str, Any]:
    """conf/table/<name>.yaml. Raises ValueError naming the tables there are."""
    file = CONF / "table" / f"{name}.yaml"
    if not file.is_file():
        known = sorted(
            path.relative_to(CONF / "table").with_suffix("").as_posix() for path in (CONF / "table").rglob("*.yaml")
        )
        raise ValueError(f"table={name} is not known: use one of {', '.join(known)}")
    return yaml.safe_load(file.read_text())


def tables(name: str, outputs: Path, dataset: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """The table once per data set that its experiments were measured on (or on the one asked for)."""
    table = load(name)
    asked = _asked(records(outputs), table)
    found = sorted({record.summary()["dataset_name"] for group in asked.values() for record, _ in group})
    if dataset is not None and dataset not in found:
        raise ValueError(
            f"table={name} dataset={dataset}: no record of it in {outputs / 'records'}: run its experiments, e.g. "
            f"lgap-bench run -m '+experiment/{_folder(table)}=glob(*)' dataset={dataset}"
        )
    chosen = [dataset] if dataset is not None else found
    return {which: _rows(table, _on(asked, which)) for which in chosen} or {"nothing measured": _rows(table, {})}


Asked = dict[str, list[tuple[Record, str]]]  # experiment -> records with the overrides that single them out


def _asked(found: Sequence[Record], table: Mapping[str, Any]) -> Asked:
    wanted = {row.get("experiment") for row in table["rows"]} | {
        e for row in table["rows"] for e in row.get("worst_of", [])
    }
    asked: Asked = defaultdict(list)
    for record in found:
        # A cell may have been asked for more than once, by calls that differ in nothing that counts.
        for experiment, text in sorted({(a["experiment"], differs(a["overrides"])) for a in record.askers()}):
            if experiment in wanted:
                asked[experiment].append((record, text))
    return asked


def differs(overrides: Sequence[str]) -> str:
    """The overrides that make a cell another one than its experiment's default, e.g. `n=200 attack.steps=10`."""
    kept = [text for text in overrides if text.split("=")[0].lstrip("+") not in SHOWN and "experiment/" not in text]
    return " ".join(sorted(kept))


def _on(asked: Asked, dataset: str) -> Asked:
    return {
        experiment: [(record, text) for record, text in group if record.summary()["dataset_name"] == dataset]
        for experiment, group in asked.items()
    }


def _rows(table: Mapping[str, Any], asked: Asked) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row in table["rows"]:
        if "section" in row:
            rows.append({"row": f"[{row['section']}]"})
            continue
        paper = {"paper_natural": _percent(row.get("natural")), "paper_robust": _percent(row.get("robust"))}
        paper |= {"architecture": row.get("architecture"), "source": table["source"] if "robust" in row else None}
        lines = (
            _worst(row["worst_of"], asked) if "worst_of" in row else _measured(asked.get(row.get("experiment", ""), []))
        )
        title = {"row": row["row"] if "experiment" in row or "worst_of" in row else f"{row['row']} (cited)"}
        rows += [{**line, **paper, **title} for line in lines] or [{**paper, **title}]
    return rows


def _measured(cells: Sequence[tuple[Record, str]]) -> list[dict[str, Any]]:
    """One line per group of records that differ in their seed alone."""
    groups: dict[str, list[tuple[Record, str]]] = defaultdict(list)
    for record, text in cells:
        groups[text].append((record, text))
    lines = [_line([record for record, _ in group], text) for text, group in sorted(groups.items())]
    return lines + _spread(lines)


def _line(cells: Sequence[Record], text: str) -> dict[str, Any]:
    line = merge(sorted(cells, key=lambda record: record.summary()["seed"]))
    return {**line, "view": cells[0].summary()["view"], "differs": text or None, "interval": _interval(line)}


def _interval(line: Mapping[str, Any]) -> str | None:
    return f"{line['robust_low']:.1f}-{line['robust_high']:.1f}" if "robust" in line else None


def _spread(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The spread over trainings: lines that differ in finetune.seed or train.seed alone, as one more line."""
    trained = [line for line in lines if _without_training_seed(line["differs"]) is None]
    if len(trained) < 2:
        return []
    values = [line["robust"] for line in trained]
    return [
        {
            "robust": float(np.mean(values)),
            "natural": float(np.mean([line["natural"] for line in trained])),
            "interval": f"{min(values):.1f}-{max(values):.1f}",
            "attack": trained[0]["attack"],
            "view": trained[0]["view"],
            "n": trained[0]["n"],
            "differs": f"mean and range over {len(trained)} trainings (finetune.seed)",
        }
    ]


def _without_training_seed(text: str | None) -> str | None:
    kept = [word for word in (text or "").split() if not word.startswith(("finetune.seed=", "train.seed="))]
    return " ".join(kept) or None


def _worst(experiments: Sequence[str], asked: Asked) -> list[dict[str, Any]]:
    """The worst attack per sample, chosen on select draws and scored on score draws that no attack has seen.

    Only runs of the same images are compared: those with the same overrides. `attack` says how many there were.
    """
    texts = sorted({text for experiment in experiments for _, text in asked.get(experiment, [])})
    lines = []
    for text in texts:
        present = {e: {r.summary()["seed"]: r for r, t in asked.get(e, []) if t == text} for e in experiments}
        present = {e: cells for e, cells in present.items() if cells}
        seeds = sorted(set.intersection(*(set(cells) for cells in present.values())))
        if len(present) > 1 and seeds:
            lines.append(_worst_line([[present[e][seed] for e in present] for seed in seeds], text, len(experiments)))
    return lines


def _worst_line(by_seed: Sequence[Sequence[Record]], text: str, asked_for: int) -> dict[str, Any]:
    correct, natural = [], []
    for cells in by_seed:
        samples = [record.samples() for record in cells]
        if any(other["id"] != samples[0]["id"] for other in samples):
            raise ValueError("worst_of: the records hold different images: measure them with the same n and split")
        damage = np.where([s["failed"] for s in samples], -np.inf, [s["attacked_damage"] for s in samples])
        guesses = np.asarray([s["attacked_prediction"] for s in samples])
        labels = np.asarray(samples[0]["label"])
        worst = damage.argmax(0)
        correct.append(guesses[worst, np.arange(len(labels))] == labels[:, None])
        natural.append(np.asarray(samples[0]["clean_prediction"]) == labels[:, None])
    robust, clean = accuracy(np.asarray(correct)), accuracy(np.asarray(natural))
    first = by_seed[0][0].summary()
    line: dict[str, Any] = {"natural": clean.mean, "natural_any_of_k": clean.any_of_k}
    line |= {"robust": robust.mean, "robust_low": robust.low, "robust_high": robust.high}
    line |= {"any_of_k": robust.any_of_k, "majority_of_k": robust.majority_of_k}
    line |= {"eps": first["eps"], "norm": first["norm"], "dataset": first["dataset_name"], "n": first["n"]}
    compared = len(by_seed[0])
    attack = f"worst of {compared}" + ("" if compared == asked_for else f" ({asked_for} asked for)")
    line |= {"attack": attack, "view": "per sample", "seeds": len(by_seed), "differs": text or None}
    return {**line, "interval": _interval(line)}


def _percent(value: Any) -> str | None:
    """A published value with the two digits that papers print."""
    return None if value is None else f"{value:.2f}"


def _folder(table: Mapping[str, Any]) -> str:
    first = next(row["experiment"] for row in table["rows"] if "experiment" in row)
    return first.rsplit("/", 1)[0]
