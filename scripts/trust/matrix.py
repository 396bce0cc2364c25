"""Defenses of known robustness under every attack, with verdicts: `python -m scripts.trust.matrix [--quick] [outputs=...]`.

A cell is wrong if it is called sound and lies above the truth by more than one image, or if a sound defense's best attack is
not called sound. A refusal is a right answer to a defense that breaks a promise. Prints docs/trust.md's table.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml

from lgap_bench.cell.compose import composed
from lgap_bench.dataset.base import DataSet
from lgap_bench.dataset.digits import digits
from lgap_bench.measure import run_cell
from lgap_bench.noise import streams
from lgap_bench.runtime.errors import is_user_error
from scripts.trust.defenses import Linear, Negative

ATTACKS = ("full", "apgd_ce", "full_ensemble", "bpda", "pgd", "square")
N = 32
DRAWS = 10  # score draws, conf's own number
CODE = "scripts.trust.defenses"
WEIGHTS = "embedded:digits/standard"
SHORT = {  # a fifth of the published steps: these networks are small, and what holds out is seen anyway
    "apgd_ce": ["attack.n_iter=40", "attack.draws=4"],
    "square": ["attack.n_queries=500", "attack.draws=2"],
    "full_ensemble": ["attack.members.apgd_ce.n_iter=30", "attack.members.apgd_t.n_iter=20", "attack.outside.square.n_queries=200"],
}  # fmt: skip
QUICK = ["n=4", "chunk=4", "score_draws=2"]


@dataclass(frozen=True)
class Defense:
    """What stands in a row.

    Attributes:
        purifier, classifier: code and its keys; None for none and for the miniature's standard network.
        truth: its robust accuracy in percent; None where only its bounds are known.
        eps: budget, linf.
        sound: whether it hides nothing, so that the strongest attack on it has to be called sound.
    """

    purifier: tuple[str, dict[str, object]] | None = None
    classifier: tuple[str, dict[str, object]] | None = None
    truth: float | None = 0.0
    eps: str = "48/255"
    sound: bool = False
    more: list[str] = field(default_factory=list)


def defenses(n: int) -> dict[str, Defense]:
    """The rows; the linear model's truth is computed here, on the images that the cells take."""
    model, data = Linear(), digits("test")
    x, y = data.images[:n], data.labels[:n]
    robust = 100 * float(model.robust(x, y, 4 / 255).float().mean())
    linear: tuple[str, dict[str, object]] = ("Linear", {})
    broken = {
        "quantise to 4 levels": Defense(("Quantise", {"levels": 4})),
        "identity with detach": Defense(("Detach", {})),
        "black and white": Defense(("Threshold", {}), truth=None),
        "rounding in a DCT basis": Defense(("RoundedDct", {"step": 0.5})),
        "stochastic rounding": Defense(("StochasticRounding", {})),
        "fine ripple": Defense(("Ripple", {})),
        "reversed gradient": Defense(("OddGradient", {"kind": "reversed"})),
        "gradient of noise": Defense(("OddGradient", {"kind": "noise"})),
        "vanishing gradient": Defense(("OddGradient", {"kind": "flat"})),
        "gradient not a number": Defense(("OddGradient", {"kind": "nan"})),
        "three quarters of the pixels detached": Defense(("HalfHidden", {})),
        "loud noise": Defense(("Jitter", {"std": 0.08})),
        "batch mean taken away": Defense(("BatchMean", {})),
        "logits times 10,000": Defense(classifier=("Saturated", {"weights": WEIGHTS})),
        "decision alone": Defense(classifier=("Argmax", {"weights": WEIGHTS})),
    }
    sound = {
        "standard classifier": Defense(sound=True),
        "linear model, 4/255": Defense(classifier=linear, truth=robust, eps="4/255", sound=True),
        "adversarially trained": Defense(truth=None, sound=True, more=["classifier=digits/adversarial"]),
        "linear model, a tenth of the draws negative": Defense(
            ("Negative", {}), linear, _flipped(model, data, n), "4/255", sound=True
        ),
    }
    return {**broken, **sound}


def _flipped(model: Linear, data: DataSet, n: int) -> float:
    """On the very draws that score: the image where a draw hands it on, else its negative, whose label may survive."""
    x, y = data.images[:n], data.labels[:n]
    noise = streams(0, data.ids[:n].tolist())["score"].draws(DRAWS)
    flip = noise.uniform(x.flatten(1)[:, :1].repeat(DRAWS, 1), "flip").view(DRAWS, n) < Negative().rate
    negative = model(1 - x).argmax(1) == y
    return 100 * float(torch.where(flip, negative, model.robust(x, y, 4 / 255)).float().mean())


def measure(name: str, defense: Defense, attack: str, outputs: str, quick: bool) -> tuple[str, float | None, str]:
    """(what the cell prints, its number, its verdict) of one cell; a refusal has no number."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = []
        for group, part in (("purifier", defense.purifier), ("classifier", defense.classifier)):
            if part is not None:
                file = Path(folder) / group / "known.yaml"
                file.parent.mkdir()
                file.write_text(yaml.safe_dump({"_target_": f"{CODE}.{part[0]}", **part[1]}))
                chosen.append(f"{group}=known")
            elif group == "purifier":
                chosen.append("purifier=none")
        words = [
            f"hydra.searchpath=[file://{folder}]", *chosen, f"attack={attack}", f"threat.eps={defense.eps}", f"n={N}",
            "threads=1", f"outputs={outputs}", *SHORT.get(attack, ()), *(QUICK if quick else ()), *defense.more,
        ]  # fmt: skip
        try:
            cfg = composed(words)
            record = run_cell(cfg, cfg.hydra.runtime.choices)
        except Exception as error:
            if not is_user_error(error):
                raise
            return "refused", None, str(error)
    value, robust = record.verdict()[0], record.summary().get("robust", {}).get("mean")
    mark = {"upper bound": "≤ "}.get(value, "")
    shown = "invalid" if robust is None or value == "invalid" else f"{mark}{robust:.1f}"
    return shown, robust, value


def wrong(defense: Defense, number: float | None, verdict: str, n: int) -> bool:
    """Whether a cell says more than is true."""
    if number is None or verdict != "sound" or defense.truth is None:
        return False
    return number > defense.truth + 100 / n + 1e-6


def main(arguments: list[str]) -> None:
    """Print the table and how many cells are wrong; exit 1 if any is."""
    torch.set_num_threads(1)
    quick = "--quick" in arguments
    outputs = next((word.split("=", 1)[1] for word in arguments if word.startswith("outputs=")), "outputs/trust")
    n = 4 if quick else N
    only = [word for word in arguments if "=" not in word and word != "--quick"]
    print("| defense | truth | " + " | ".join(ATTACKS) + " |\n| --- | --- |" + " --- |" * len(ATTACKS))
    bad = []
    for name, defense in defenses(n).items():
        if only and name not in only:
            continue
        for attack in ATTACKS:  # twice: a lower number that another attack found is part of the verdict
            measure(name, defense, attack, outputs, quick)
        found = {attack: measure(name, defense, attack, outputs, quick) for attack in ATTACKS}
        bad += [f"{name} under {a}: {text}" for a, (text, r, v) in found.items() if wrong(defense, r, v, n)]
        if defense.sound and found["full_ensemble"][2] != "sound":
            bad.append(f"{name}: its strongest attack is called {found['full_ensemble'][2]}")
        truth = "unknown" if defense.truth is None else f"{defense.truth:.1f}"
        print(f"| {name} | {truth} | " + " | ".join(found[a][0] for a in ATTACKS) + " |", flush=True)
    print(f"\n{len(bad)} wrong cells" + "".join(f"\n- {line}" for line in bad))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main(sys.argv[1:])
