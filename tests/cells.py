"""How the tests call the command: in this process, which is warm, or in a fresh one, as a user does."""

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from lgap_bench import cli
from lgap_bench.cell.compose import composed, resolved
from lgap_bench.cell.identity import identity, record_id, stage_identity
from lgap_bench.logger import console
from lgap_bench.logger.base import SILENT, Loggers
from lgap_bench.measure import run_cell
from lgap_bench.record import Record

# A cell of a second or two: the real models, few images, few steps.
SMALL = ["n=8", "chunk=4", "score_draws=2", "attack.steps=2", "threads=1"]


@dataclass(frozen=True)
class Result:
    """What a call of the command ended with, as `subprocess` names it."""

    returncode: int
    stdout: str
    stderr: str


def called(*words: str) -> Result:
    """The command in this process: what `lgap_bench(*words)` answers, without the seconds that an import of torch takes.

    `tests/test_called.py` holds the two against one another. A test of a kill, of two jobs at once, or of what is not
    imported needs a fresh process.
    """
    out, err = io.StringIO(), io.StringIO()
    with fresh_process(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = ["lgap-bench", *words]
        code = exit_code()
    return Result(code, out.getvalue(), err.getvalue())


def exit_code() -> int:
    """Run the command and end as Python would: a message is printed, anything else that is raised has a traceback."""
    try:
        cli.main()
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def fresh_process() -> Iterator[None]:
    """What a process has once is new on the way in, and as it was on the way out."""
    argv, environment, folder = sys.argv, dict(os.environ), Path.cwd()
    torch = sys.modules.get("torch")  # not imported here: tests/torchless.py answers without it
    threads = torch and torch.get_num_threads()
    root = logging.getLogger()
    heard = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    }
    handlers, level, hydra = root.handlers[:], root.level, HydraConfig.instance().cfg
    os.environ.pop("HYDRA_FULL_ERROR", None)
    first, console.FIRST = console.FIRST, 1e6  # on a busy machine a line of progress would stand before the answer
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        console.FIRST = first
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = hydra
        for number, handler in heard.items():
            signal.signal(number, handler)
        root.handlers[:] = handlers
        root.setLevel(level)
        if torch:
            torch.set_num_threads(threads)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = argv


def lgap_bench(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a fresh process."""
    command = [sys.executable, "-m", "lgap_bench.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, stdin=subprocess.DEVNULL)


def only_record(outputs: Path) -> Path:
    (folder,) = (outputs / "records").iterdir()
    return folder


def summary(outputs: Path) -> dict:
    return json.loads((only_record(outputs) / "summary.json").read_text())


def identified(overrides: Sequence[str]) -> dict[str, str]:
    """The id of a cell's record on a CPU, and those of the stages that it needs."""
    cell = resolved(overrides)
    stages = [*cell.stages]
    if (cell.finetune or {}).get("images") == "purified":
        stages.append("purified")
    ids = {stage: record_id(stage_identity(cell, stage, "cpu")) for stage in stages}
    return {"cell": record_id(identity(cell, "cpu")), **ids}


def run(overrides: Sequence[str], loggers: Loggers = SILENT) -> Record:
    """A cell in this process, as the command would run it."""
    cfg = composed(overrides)
    return run_cell(cfg, cfg.hydra.runtime.choices, overrides, loggers)
