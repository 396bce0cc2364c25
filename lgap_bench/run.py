"""One cell: compose, check, evaluate chunk by chunk, save the record, print it. `python -m lgap_bench.run key=value ...`"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lgap_bench import CONF, __version__
from lgap_bench.cell import build, identity, record_id, resolve
from lgap_bench.check import check, require_files, writable
from lgap_bench.dry import dry, takes
from lgap_bench.errors import is_users, sentence
from lgap_bench.lock import locked
from lgap_bench.process import settle, torch_device
from lgap_bench.record import Record

ASKED: list[
    str
] = []  # jobs of this process: a sweep over a folder that does not exist has none, and Hydra says nothing
FAILED: list[str] = []  # cells of this process that could not run: Hydra hands no job's result back


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def app(cfg: DictConfig) -> None:
    """The Hydra application: one cell per job. A cell that cannot run is named, and the sweep goes on."""
    ASKED.append(HydraConfig.get().job.name)
    try:
        if cfg.dry:
            return print(dry(resolve(cfg, HydraConfig.get().runtime.choices)))
        record = run_cell(cfg, HydraConfig.get().runtime.choices, HydraConfig.get().overrides.task)
    except Exception as error:
        if not is_users(error):
            raise
        FAILED.append(sentence(error))
        print(FAILED[-1], file=sys.stderr)
    else:
        print(one_screen(record))


def main() -> None:
    """Run the application; exit code 1 if any cell could not run."""
    app()
    if not ASKED and {"-m", "--multirun"} & set(sys.argv):
        raise ValueError(
            f"{' '.join(sys.argv[1:])}: no cell matches, so nothing was measured: glob(*) finds the files of one folder of conf/, is its name right?"
        )
    if FAILED:
        sys.exit(1)


def run_cell(cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str] = (), quiet: bool = False) -> Record:
    """Measure one cell, or answer from its record. Raises ValueError in one line for anything the user can mend.

    `overrides` are what the user asked for, kept beside the record so that tables find it by its experiment.
    """
    cell = resolve(cfg, choices)
    check(cell)
    require_files(cell)
    device, device_class = torch_device(cell["device"])
    named = identity(cell, device_class)
    record = Record(Path(cell["outputs"]) / "records" / record_id(named))
    if record.complete:
        _answer(record, cell)
    else:
        settle(cell)
        takes(cell)
        writable(record.folder, "outputs")
        title = f"{cell['purifier_name']} under {cell['attack_name']}"
        with locked(Path(cell["outputs"]), record.folder.name, title):
            if record.complete:  # another job measured it while this one waited
                _answer(record, cell)
            else:
                _measure(cell, named, record, device, device_class, quiet)
    if cell["experiment_name"]:
        record.asked(cell["experiment_name"], list(overrides))
    return record


def _measure(
    cell: dict[str, Any], named: dict[str, Any], record: Record, device: str, device_class: str, quiet: bool
) -> None:
    """Build the parts (training what has to be trained), evaluate, save."""
    began = time.monotonic()
    from lgap_bench.evaluate import evaluate, summarise
    from lgap_bench.finetune.stage import summaries
    from lgap_bench.report.grid import draw_grid

    parts = build(cell, device, device_class, quiet)
    record.begin(cell, named)
    progress = _Progress(f"{cell['purifier_name']} under {cell['attack_name']}", quiet)
    chunks = evaluate(parts, cell, record, device, progress)
    progress.end()
    names = {key: value for key, value in cell.items() if key.endswith("_name") and key != "experiment_name"}
    facts = {"id": record.folder.name, "n": cell["n"], "seed": cell["seed"], "norm": cell["threat"]["norm"]}
    facts |= {"view": _view(cell), "eps": str(cell["threat"]["eps"]), "stages": summaries(cell, device_class)}
    facts["classes"] = list(parts.dataset.classes)
    record.finish(chunks, {**facts, **names, **summarise(chunks)}, _run_facts(chunks, began, device_class))
    draw_grid(record, parts.dataset.classes)


def _view(cell: Mapping[str, Any]) -> str:
    """The view as it has to be read: under `full` a caption is observed anew on every iterate and fixed within a step.

    A guidance that hides its gradient by itself (`detach_guidance`) leaves no view exact.
    """
    fixed = cell["view_name"] in ("full", "detached") and cell["purifier"].get("captioner") is not None
    hides = (cell["purifier"].get("guidance") or {}).get("detach_guidance", False)
    hidden = hides and cell["view_name"] in ("full", "surrogate", "adjoint")
    shown = cell["view"].get("shown", cell["view_name"]) + (", guidance hidden" if hidden else "")
    return shown + (", caption fixed" if fixed else "")


def _answer(record: Record, cell: Mapping[str, Any]) -> None:
    """A finished record answers if it is whole: a damaged one is refused, a grid that a kill took is drawn again."""
    record.summary()
    if cell["keep_images"] and not (record.folder / "images.npz").exists():
        raise ValueError(
            f"keep_images=true, but record {record.folder} was made without them: delete this folder, the cell is "
            "computed again"
        )
    if not (record.folder / "grid.png").exists():
        from lgap_bench.report.grid import draw_grid

        draw_grid(record, record.classes())


def _run_facts(chunks: list[Any], began: float, device_class: str) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:  # autoattack itself may stand in for pyautoattack
            return None

    packages = ("torch", "diffusers", "transformers", "pyautoattack", "torchattacks", "torchsde")
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": round(sum(float(chunk["seconds"]) for chunk in chunks), 3),
        "seconds_of_last_call": round(time.monotonic() - began, 3),
        "device": device_class,
        "lgap-bench": __version__,
        "python": sys.version.split()[0],
        **{name: installed(name) for name in packages},
    }


class _Progress:
    """Robust-so-far and the time left: one rewritten line on a terminal, a line per chunk in a log."""

    def __init__(self, title: str, quiet: bool) -> None:
        self.title, self.quiet, self.live = title, quiet, sys.stderr.isatty()

    def __call__(self, done: int, n: int, robust: float, left: float) -> None:
        if self.quiet:
            return
        line = f"{self.title}: {done}/{n}  robust so far {robust:5.1f} %  {left:4.0f} s left"
        print(f"\r{line:<78}" if self.live else line, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Finish the rewritten line."""
        if self.live and not self.quiet:
            print(file=sys.stderr)


def one_screen(record: Record) -> str:
    """A cell's numbers as a person reads them."""
    s, run = record.summary(), record.run()
    lines = [
        f"{s['purifier_name']} + {_classifier(s)} on {s['dataset_name']}, {s['attack_name']} (view {s['view']}), "
        f"{s['norm']} {s['eps']}, n = {s['n']}, seed {s['seed']}"
    ]
    for title in ("natural", "robust"):
        if title in s:
            a = s[title]
            lines.append(
                f"  {title:8} {a['mean']:5.1f}  [{a['low']:.1f}, {a['high']:.1f}]   any of {s['score_draws']}: "
                f"{a['any_of_k']:.1f}   majority: {a['majority_of_k']:.1f}   undefended: {s[f'undefended_{title}']:.1f}"
            )
    if s.get("caption_label_clean") is not None:
        lines.append(
            f"  caption names the label: clean {s['caption_label_clean']:.1f}, attacked {s['caption_label_attacked']:.1f}"
        )
    if s.get("attacked_caption_target") is not None:
        lines.append(f"  attacked captions that say what the attack aimed at: {s['attacked_caption_target']:.1f}")
    if "as_published" in s:
        lines.append(f"  the library's own count (as_published): {s['as_published']:.1f}")
    finders = {key.removeprefix("found_by_"): value for key, value in s.items() if key.startswith("found_by_")}
    if len(finders) > 1:
        shares = ", ".join(f"{name} {value:.0f} %" for name, value in finders.items())
        lines.append(f"  the worst image was found by: {shares}")
    if "gradient_cosine" in s:
        lines.append(
            f"  this view's gradient beside the exact one (at most 4 images): cosine {s['gradient_cosine']:.3f}, signs agree {s['gradient_signs']:.1f} %"
        )
    if s["failed"]:
        lines.append(f"  partial: the attack failed on {s['failed']} samples, which count neither way")
    lines.append(f"  {run['seconds']:.1f} s   record and pictures: {record.folder}")
    return "\n".join(lines)


def _classifier(summary: Mapping[str, Any]) -> str:
    """The classifier's name and what was done to it."""
    stages = [f"{stage} {summary[f'{stage}_name']}" for stage in summary["stages"]]
    return ", ".join([summary["classifier_name"], *stages])


if __name__ == "__main__":
    from lgap_bench.cli import one_line_errors

    one_line_errors(main)
