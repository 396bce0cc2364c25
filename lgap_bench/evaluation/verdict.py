"""The verdict: may a number be read as robustness? Sound, an upper bound, or invalid, with the reasons.

`upper bound`: something shows that a stronger attack exists, so that robustness is at most the number. `invalid`: the
measurement itself failed. `sound`: none of the checks found anything; that is no proof (docs/trust.md says what it is not).

A check is a function of the facts that gives a reason or nothing. The table is Carlini et al.'s (2019), Tramer et al.'s
(2020) and Pintor et al.'s (2022); what costs attacks of its own is not among them yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.cell.about import about
from lgap_bench.cell.config import Cell, Config
from lgap_bench.cell.rules import paths
from lgap_bench.metric.order import another_order
from lgap_bench.record import Chunk

SOUND, BOUND, INVALID = "sound", "upper bound", "invalid"
ZERO_GRADIENTS = 1.0  # percent of samples without any gradient (Carlini et al. 2019)
DEAD_PIXELS = 50.0  # percent of pixels, mean over samples
STILL_RISING = 0.05  # of the loss's range over the run, in its last tenth
SLOPE = (0.5, 2.0)  # finite difference over gradient, median over the images asked
REGENERATED = 2.0  # percent of pixels without gradient that a region which is regenerated leaves unsaid
FLAT = 50.0  # percent of images whose margin stays exactly the same under noise
FAILED = 5.0  # percent of samples
WEIGHTS = {"captioner": "caption_weight", "detector": "detector_weight"}  # of an attack's loss


@dataclass(frozen=True)
class Reason:
    """Why a number is not sound.

    Attributes:
        check: which one found it.
        text: what it found, with its figure, for a person.
        verdict: what follows.
    """

    check: str
    text: str
    verdict: str = BOUND


@dataclass(frozen=True)
class Facts:
    """What the checks look at: the cell, its chunks, and its numbers so far."""

    cell: Cell
    randomized: bool
    chunks: Sequence[Chunk]
    summary: Mapping[str, Any]

    def column(self, name: str) -> NDArray[Any] | None:
        """A column over all samples, or None where a chunk lacks it."""
        if not all(name in chunk for chunk in self.chunks):
            return None
        return np.concatenate([np.asarray(chunk[name]) for chunk in self.chunks])

    @property
    def attacks(self) -> list[Config]:
        """The attack, or those that it is made of."""
        keys = about(self.cell.attack, "made_of", ())
        members = [member for key in keys for member in self.cell.attack[key].values()]
        return members or [self.cell.attack]

    @property
    def robust(self) -> NDArray[np.bool_]:
        """Which samples are still right in most draws."""
        right = [(chunk["attacked_margin"] > 0).mean(0) > 0.5 for chunk in self.chunks]
        return np.concatenate(right)


Check = Callable[[Facts], Reason | None]


def verdict(facts: Facts) -> dict[str, Any]:
    """`verdict` and `reasons` of a cell's summary."""
    reasons = [reason for check in CHECKS if (reason := check(facts)) is not None]
    if facts.summary.get("robust", {}).get("mean") == 0:  # nothing is left that a stronger attack could take
        reasons = [reason for reason in reasons if reason.verdict != BOUND]
    worst = max([reason.verdict for reason in reasons], key=(SOUND, BOUND, INVALID).index, default=SOUND)
    return {"verdict": worst, "reasons": [asdict(reason) for reason in reasons]}


def _failed(facts: Facts) -> Reason | None:
    """Samples whose attack crashed count neither way."""
    failed, n = facts.summary["failed"], facts.cell.n
    if not failed:
        return None
    severe = 100 * failed / n > FAILED
    return Reason("failed samples", f"the attack failed on {failed} of {n} samples", INVALID if severe else BOUND)


def _chance(facts: Facts) -> Reason | None:
    """A classifier that guesses has no robustness to measure: its labels or its class order are wrong."""
    natural, classes = facts.summary["undefended_natural"], len(facts.summary["classes"])
    several = [
        chunk["labels"] for chunk in facts.chunks if "labels" in chunk
    ]  # (classes, images): any of them is right
    chance = 100 * float(np.concatenate(several, axis=1).mean()) if several else 100 / classes
    if natural > chance:
        return None
    text = f"it is right on {natural:.1f} % of clean images, chance is {chance:.1f} %: "
    return Reason("undefended classifier", text + (_order(facts) or "are labels and class order right?"), INVALID)


def _order(facts: Facts) -> str | None:
    """The order in which the bare classifier's answers would be right, if there is one."""
    predicted, labels = facts.column("clean_undefended"), facts.column("label")
    moved = {} if predicted is None or labels is None else another_order(predicted, labels)
    classes = facts.summary["classes"]
    shown = [f"its {own} is {classes[label]} ({label})" for own, label in moved.items()]
    return f"its logits fit the labels in another order, {', '.join(shown[:3])}" if shown else None


def _view(facts: Facts) -> Reason | None:
    """A view that shows the attacker less than the defense, or another gradient than its own."""
    bound = about(facts.cell.view, "bound")
    bare = facts.cell.names.purifier == "none"
    return None if bound is None or bare else Reason("view", f"view {facts.cell.names.view}: {bound}")


def _attack(facts: Facts) -> Reason | None:
    """An attack that is a control, a single step, or aims elsewhere."""
    bound = about(facts.cell.attack, "bound")
    return None if bound is None else Reason("attack", f"attack {facts.cell.names.attack}: {bound}")


def _one_draw(facts: Facts) -> Reason | None:
    """One draw per gradient on a randomized defense: every step climbs another function."""
    draws = [attack["draws"] for attack in facts.attacks if "draws" in attack]
    sees = facts.cell.names.view not in ("blind", "query", "none", "transfer")
    if not facts.randomized or not sees or not draws or max(draws) > 1:
        return None
    return Reason("EOT", "one draw per gradient on a randomized defense: use attack.draws=10 or more")


def _unattacked(facts: Facts, part: str, mend: str) -> Reason | None:
    """A part of the purifier that has weights can be attacked, by its own term in the loss, and then has to be."""
    attackable = paths(facts.cell.purifier.get(part), "weights")
    attacked = any(attack.get(WEIGHTS[part]) for attack in facts.attacks)
    if not attackable or attacked or facts.cell.names.attack == "none":
        return None
    return Reason(part, f"the {part} can be attacked and was not: use attack={mend}")


def _captioner(facts: Facts) -> Reason | None:
    """A captioner is a second classifier."""
    return _unattacked(facts, "captioner", "full_joint or full_ensemble")


def _detector(facts: Facts) -> Reason | None:
    """A detector says where and under which words an image is purified."""
    return _unattacked(facts, "detector", "full_detector or bpda_detector")


def _regenerated(facts: Facts) -> Reason | None:
    """Where a region begins as noise, nothing of the image in it reaches the result but through the mask and the text."""
    dead = facts.column("zero_pixels")
    if dead is None or facts.column("clean_region") is None or not facts.robust.any():
        return None
    share = 100 * float(dead[facts.robust].mean())
    if share <= REGENERATED or about(facts.cell.attack, "gradient_free"):
        return None
    return Reason(
        "regenerated region",
        f"no gradient on {share:.0f} % of the pixels, which are regenerated: read it beside attack=bpda_detector, detector and square",
    )


def _zero_gradients(facts: Facts) -> Reason | None:
    """Where no gradient comes through, an attack that follows it stands still."""
    zero, robust = facts.column("zero_gradient"), facts.robust
    if zero is None or not robust.any():
        return None
    share = 100 * float(zero[robust].mean())
    if share <= ZERO_GRADIENTS:
        return None
    mend = (
        "BPDA and a search alone stand for it"
        if about(facts.cell.attack, "gradient_free")
        else "use attack=full_ensemble"
    )
    return Reason("zero gradients", f"no gradient on {share:.1f} % of the samples that held: {mend}")


def _dead_pixels(facts: Facts) -> Reason | None:
    """A mask that hides most pixels from the gradient hides them from the attacker."""
    dead, robust = facts.column("zero_pixels"), facts.robust
    if dead is None or not robust.any():
        return None
    share = 100 * float(dead[robust].mean())
    return None if share <= DEAD_PIXELS else Reason("zero pixels", f"no gradient on {share:.0f} % of the pixels")


def _flat(facts: Facts) -> Reason | None:
    """A defense that answers with its decision alone shows neither a gradient nor a search where to go."""
    flat = facts.summary.get("flat_margin", 0.0)
    if flat <= FLAT or facts.cell.names.view == "none" or not facts.robust.any():
        return None
    return Reason(
        "flat margin",
        f"the margin of {flat:.0f} % of images does not move with the image: only a decision-based attack would see",
    )


def _slope(facts: Facts) -> Reason | None:
    """A gradient that does not say how the loss changes leads nowhere."""
    ratio = facts.summary.get("slope_ratio")
    if (
        ratio is None
        or not facts.robust.any()
        or about(facts.cell.attack, "gradient_free")
        or SLOPE[0] <= ratio <= SLOPE[1]
    ):
        return None
    return Reason(
        "finite differences",
        f"along its gradient the loss rises {ratio:.2f} times as much as the gradient says: it is masked or wrong",
    )


def _reachable(facts: Facts) -> Reason | None:
    """An image that the attack never moved, although random noise of the same budget is classified wrong."""
    reached = facts.column("unmoved_reachable")
    if reached is None or not reached.any():
        return None
    return Reason(
        "unmoved images",
        f"{int(reached.sum())} images were never moved, and random noise of the same budget breaks them",
    )


def _rising(facts: Facts) -> Reason | None:
    """A loss that still rises at the end: more steps would find more."""
    rise, robust = facts.column("loss_rise"), facts.robust
    if rise is None or not np.isfinite(rise[robust]).any():  # none held, or none of these was traced to the end
        return None
    middle = float(np.nanmedian(rise[robust]))
    if not middle > STILL_RISING:
        return None
    return Reason(
        "convergence",
        f"the loss still rose by {100 * middle:.0f} % of its range in the last tenth of the steps: use more",
    )


def _lost(facts: Facts) -> Reason | None:
    """A success on the defense itself that a later step gave up."""
    lost = facts.column("lost_success")
    if lost is None or _view(facts) is not None:  # a view that sees less calls other images wrong than the defense does
        return None
    count = int((lost & facts.robust).sum())
    return (
        None
        if not count
        else Reason("lost successes", f"{count} images were wrong at an earlier step: use attack.keep=best")
    )


def _warnings(facts: Facts) -> Reason | None:
    """What an attack library said on the way."""
    notes = sorted({str(note) for chunk in facts.chunks for note in chunk.get("notes", ())})
    if not notes or about(facts.cell.attack, "gradient_free"):
        return None
    return Reason("library warnings", "; ".join(notes)[:300])


CHECKS: Sequence[Check] = (
    _failed,
    _chance,
    _view,
    _attack,
    _one_draw,
    _captioner,
    _detector,
    _regenerated,
    _zero_gradients,
    _dead_pixels,
    _flat,
    _slope,
    _reachable,
    _rising,
    _lost,
    _warnings,
)
