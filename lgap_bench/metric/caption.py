"""Do captions stay faithful under attack? Label words, BLEU and ROUGE-L, on text alone: nothing heavy is imported.

The paper's premise (LGAP, section 3.1) is that the attacked caption still says what is in the image.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

Synonyms = Mapping[str, Sequence[str]]  # class name -> other words or phrases for it


def says(caption: str, phrase: str) -> bool:
    """Whether the phrase stands in the caption as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(phrase.lower())}(?!\w)", caption.lower()) is not None


def names_label(caption: str, label: int, classes: Sequence[str], synonyms: Synonyms | None = None) -> bool:
    """Whether the class's name, or a synonym of it, stands in the caption as whole words, in any case."""
    name = classes[label]
    return any(says(caption, phrase) for phrase in (name, *(synonyms or {}).get(name, ())))


def bleu(caption: str, reference: str) -> float:
    """Sentence BLEU (Papineni et al. 2002) against one reference, in [0, 1], by sacrebleu, in lower case.

    `effective order`: n-gram lengths that a short caption does not have are left out; without it every caption of three
    words scores 0. Exponential smoothing, tokens `13a` (sacrebleu's defaults). Two captions that are the same score 1,
    also where both are empty.
    """
    caption, reference = caption.lower().strip(), reference.lower().strip()
    if caption == reference:
        return 1.0
    return min(1.0, _bleu().sentence_score(caption, [reference]).score / 100)


def rouge_l(caption: str, reference: str) -> float:
    """ROUGE-L F1 (Lin 2004) in [0, 1]: the harmonic mean of (longest common subsequence of words) / (either's length).

    Words are runs of letters and digits, in lower case. Two captions without a word score 1, as they are the same.
    """
    a, b = (re.findall(r"\w+", text.lower()) for text in (caption, reference))
    if not a or not b:
        return float(a == b)
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, 1):
            above = row[j]
            row[j] = diagonal + 1 if word == other else max(above, row[j - 1])
            diagonal = above
    return 2 * row[-1] / (len(a) + len(b))


def reached(caption: str, target: int, classes: Sequence[str], synonyms: Synonyms | None, sentence: str | None) -> bool:
    """Whether a targeted caption attack led where it wanted: to the class `target`, or (-1: no class) to the sentence."""
    if target >= 0:
        return names_label(caption, target, classes, synonyms)
    return sentence is not None and says(caption, sentence)


@functools.cache
def _bleu() -> Any:
    from sacrebleu.metrics import BLEU  # imported late: a cell without captions never needs it

    return BLEU(effective_order=True)
