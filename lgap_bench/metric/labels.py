"""What several labels per image are worth: precision, average precision, and attack success in three readings.

Numpy alone: a report computes them from records. Scores are logits, one per class; truth is which classes are in the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.metric.accuracy import accuracy

Scores = NDArray[np.floating[Any]]  # (draws, images, classes)
Truth = NDArray[np.bool_]  # (images, classes)
Columns = Mapping[str, Any]

RESAMPLES = 200  # of the bootstrap over images
SOURCES = ("clean", "attacked", "clean_undefended", "attacked_undefended")


@dataclass(frozen=True)
class Labels:
    """The measure that images with several labels bring to a record's summary, below its key `labels`.

    Args:
        classes: the data set's, in the order of the scores.
        threshold: a class is said to be in the image where its score lies above; see `best_threshold`.
    """

    classes: Sequence[str]
    threshold: float

    def columns(self, x: Any, labels: Any, observed: Any, published: Any) -> dict[str, NDArray[Any]]:
        """Nothing: the scores are the task's own columns."""
        return {}

    def summary(self, chunks: Sequence[Columns], kept: NDArray[np.bool_]) -> dict[str, Any]:
        """Over the samples; of attacked images over the `kept` ones, whose attack did not fail."""
        held = {name: scores_of(chunks, name) for name in SOURCES}
        truth = np.concatenate([np.asarray(chunk["labels"]) for chunk in chunks], axis=1).T
        found: dict[str, Any] = {"threshold": self.threshold}
        for name in SOURCES:
            rows = kept if name.startswith("attacked") else np.ones_like(kept)
            if rows.any():
                found[name] = worth(held[name][:, rows], truth[rows], self.threshold, self.classes)
        if kept.any():
            for title, end in (("attack_success", ""), ("attack_success_undefended", "_undefended")):
                found[title] = success(held[f"clean{end}"][:, kept], held[f"attacked{end}"][:, kept], truth[kept])
        return {"labels": found}


def scores_of(chunks: Sequence[Columns], name: str) -> Scores:
    """All scores of a source, (draws, images, classes); a bare classifier's are one draw."""
    held = np.concatenate([np.asarray(chunk[f"{name}_scores"]) for chunk in chunks], axis=1)
    return held.T[None] if held.ndim == 2 else held


def worth(
    scores: Scores, truth: Truth, threshold: float, classes: Sequence[str] = (), intervals: bool = True
) -> dict[str, Any]:
    """In percent: `map`, `precision_macro`, `_micro`, `_sample`, `recall_micro`, means over draws; two with `intervals`.

    `map` is the mean of the classes' average precision, and needs no threshold. `precision_macro` is the mean over classes
    that are in any image of the share of true ones among those said (0 where it was never said), `_micro` that share over all
    classes at once, `_sample` its mean over images (0 where nothing was said). `per_class` holds each class's average precision.
    """
    each = average_precisions(scores, truth).mean(0)
    found: dict[str, Any] = dict(_numbers(scores, truth, threshold))
    found["per_class"] = {
        name: None if np.isnan(value) else 100 * float(value) for name, value in zip(classes, each, strict=False)
    }
    return {**found, **_intervals(scores, truth, threshold)} if intervals else found


def _intervals(scores: Scores, truth: Truth, threshold: float) -> dict[str, float]:
    """`map_low`, `map_high` and those of `precision_macro`: a bootstrap over images, nearly all of the time that a row takes."""
    generator = np.random.RandomState(0)
    drawn: dict[str, list[float]] = {"map": [], "precision_macro": []}
    for _ in range(RESAMPLES):
        rows = generator.randint(len(truth), size=len(truth))
        chosen, there = scores[:, rows], truth[rows]
        drawn["map"].append(mean_average_precision(chosen, there))
        drawn["precision_macro"].append(_macro(chosen > threshold, there))
    found = {}
    for name, values in drawn.items():
        found[f"{name}_low"], found[f"{name}_high"] = (float(v) for v in np.percentile(values, (2.5, 97.5)))
    return found


def _numbers(scores: Scores, truth: Truth, threshold: float) -> dict[str, float]:
    said = scores > threshold
    hits = said & truth
    return {
        "map": mean_average_precision(scores, truth),
        "precision_macro": _macro(said, truth),
        "precision_micro": 100 * float(_ratio(hits.sum((1, 2)), said.sum((1, 2))).mean()),
        "precision_sample": 100 * float(_ratio(hits.sum(2), said.sum(2)).mean()),
        "recall_micro": 100 * float((hits.sum((1, 2)) / truth.sum()).mean()),
    }


def _macro(said: NDArray[np.bool_], truth: Truth) -> float:
    hits = said & truth
    return 100 * float(_ratio(hits.sum(1), said.sum(1))[:, truth.any(0)].mean())


def mean_average_precision(scores: Scores, truth: Truth) -> float:
    """In percent, over the draws and the classes that are in any image."""
    return 100 * float(np.nanmean(average_precisions(scores, truth).mean(0)))


def _ratio(hits: NDArray[Any], said: NDArray[Any]) -> NDArray[Any]:
    return np.where(said > 0, hits / np.maximum(said, 1), 0.0)


def average_precisions(scores: Scores, truth: Truth) -> NDArray[np.float64]:
    """Of each draw and class, (draws, classes): the mean, over its images, of the precision down to their rank.

    Equal scores count as one rank, as in scikit-learn. NaN for a class that is in no image.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(np.broadcast_to(truth, scores.shape), order, 1)
    values = np.take_along_axis(scores, order, 1)
    hits = ranked.cumsum(1)
    precision = hits / np.arange(1, scores.shape[1] + 1)[None, :, None]
    # The rank of equal scores is that of the last of them.
    last = np.ones(values.shape, bool)
    last[:, :-1] = values[:, :-1] != values[:, 1:]
    reached = np.maximum.accumulate(np.where(last, hits, 0), axis=1)
    gained = np.diff(reached, axis=1, prepend=0)
    total = truth.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = (precision * gained * last).sum(1) / total
    return np.where(total > 0, found, np.nan)


def success(clean: Scores, attacked: Scores, truth: Truth) -> dict[str, Any]:
    """Attack success in percent, in three readings, each with its interval; draws are paired by their noise.

    `not_in_image`: the top class is not in the attacked image (the paper's section 4.1). `changed`: it is another than on the
    clean image (its section 3.1). `of_correct`: of the images whose clean top class is in the image by majority of the draws,
    those whose attacked one is not, by majority.
    """
    tops = [each.argmax(2) for each in (clean, attacked)]
    right = [
        np.take_along_axis(np.broadcast_to(truth, (*top.shape, truth.shape[1])), top[..., None], 2)[..., 0]
        for top in tops
    ]
    majority = [each.mean(0) > 0.5 for each in right]
    found = {"not_in_image": _share(~right[1].T), "changed": _share((tops[0] != tops[1]).T)}
    if majority[0].any():
        found["of_correct"] = _share(~majority[1][majority[0]][:, None])
    return found


def _share(events: NDArray[np.bool_]) -> dict[str, float]:
    """Mean over images and draws of (images, draws), with its interval over images."""
    held = accuracy(events[None])
    return {"mean": held.mean, "low": held.low, "high": held.high}


def best_threshold(scores: Scores, truth: Truth) -> float:
    """The score above which to say a class, so that F1 over all classes at once is the highest; of (images, classes)."""
    values, right = scores.ravel(), truth.ravel()
    order = np.argsort(-values, kind="stable")
    hits = right[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(values) + 1) + right.sum())
    best = int(f1.argmax())
    below = values[order][min(best + 1, len(values) - 1)]
    return float((values[order][best] + below) / 2)
