"""Loggers: told in order, told once, and unable to stop or change a cell."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cells import identified, only_record, run

from lgap_bench.cell.compose import composed, resolved
from lgap_bench.logger.base import Done, Logger, Loggers
from lgap_bench.logger.configured import configured
from lgap_bench.logger.console import Console
from lgap_bench.logger.pace import Pace
from lgap_bench.record import Record

CELL = [*("purifier=none", "attack=pgd", "attack.steps=1"), *("n=4", "chunk=2", "score_draws=2", "threads=1")]
EVENTS = ("started", "phase", "chunk", "finished", "failed")


class Heard(Logger):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def started(self, cell, record):
        self.events.append(("started", record.complete))

    def phase(self, text):
        self.events.append(("phase", text))

    def chunk(self, done):
        self.events.append(("chunk", (done.index, done.images, done.n)))

    def finished(self, record):
        self.events.append(("finished", record.complete))

    def failed(self, error):
        self.events.append(("failed", str(error)))


class Broken(Logger):
    """Raises in one event and counts how often it was told."""

    def __init__(self, event: str) -> None:
        self.told = 0
        setattr(self, event, self._fail)

    def _fail(self, *what: object) -> None:
        self.told += 1
        raise RuntimeError("no\nconnection")


class Unreachable(Logger):
    """A logger whose server does not answer."""

    def __init__(self) -> None:
        raise ConnectionError("no server")


class Particular(Logger):
    """A logger that checks its settings."""

    def __init__(self, colour: str) -> None:
        raise ValueError(f"colour={colour} is no colour")


def damaged(outputs: Path) -> list[str]:
    """The overrides of a cell that fails while it is measured: its first chunk cannot be read."""
    chunk = outputs / "records" / identified(CELL)["cell"] / "chunks" / "00000.npz"
    chunk.parent.mkdir(parents=True)
    chunk.write_text("no archive")
    return [*CELL, f"outputs={outputs}"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The cell as it is without loggers."""
    return run([*CELL, f"outputs={tmp_path_factory.mktemp('plain')}"])


@pytest.mark.parametrize("event", ["started", "chunk", "finished"])
def test_a_logger_that_raises_is_named_once_and_changes_no_sample(event, plain, tmp_path, capsys):
    broken, heard = Broken(event), Heard()
    record = run([*CELL, f"outputs={tmp_path}"], Loggers([broken, heard]))
    said = capsys.readouterr().err.splitlines()
    assert said == ["lgap-bench: logger Broken failed and is left out (RuntimeError: no connection)"]
    assert broken.told == 1
    assert [name for name, _ in heard.events] == ["started", "chunk", "chunk", "finished"], "the others go on"
    assert (record.folder / "samples.parquet").read_bytes() == (plain.folder / "samples.parquet").read_bytes()


def test_a_logger_that_raises_when_it_hears_of_an_error_hides_nothing_of_it(tmp_path, capsys):
    with pytest.raises(ValueError, match="is damaged"):
        run(damaged(tmp_path), Loggers([Broken("failed")]))
    assert capsys.readouterr().err.count("logger Broken failed") == 1


def test_a_logger_that_raises_during_training_does_not_stop_it(capsys):
    loggers = Loggers([Broken("phase")])
    for _ in range(2):
        loggers.phase("training")
    assert capsys.readouterr().err.count("logger Broken failed") == 1


def test_a_cell_tells_its_start_its_chunks_and_its_end_and_a_recorded_one_nothing(tmp_path):
    first, again = Heard(), Heard()
    for heard in (first, again):
        run([*CELL, f"outputs={tmp_path}"], Loggers([heard]))
    assert first.events == [("started", False), ("chunk", (0, 2, 4)), ("chunk", (1, 4, 4)), ("finished", True)]
    assert again.events == []


def test_a_cell_that_fails_tells_its_error_and_no_end(tmp_path):
    heard = Heard()
    with pytest.raises(ValueError, match="is damaged") as caught:
        run(damaged(tmp_path), Loggers([heard]))
    assert heard.events == [("started", False), ("failed", str(caught.value))]


def test_the_progress_in_a_log_is_a_line_per_chunk(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lgap_bench.logger.console.FIRST", 600.0)
    loggers = Loggers([Console()])
    run([*CELL, f"outputs={tmp_path}"], loggers)
    loggers.closed()  # or its clock goes on and speaks in the middle of a later test
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["none under pgd: 2/4", "none under pgd: 4/4"]
    assert all("\r" not in line and line.endswith("s left") for line in lines)


def test_on_a_terminal_a_bar_shows_the_chunks_and_a_phase_stands_on_a_line_of_its_own(capsys):
    console = Console()
    console.live, console.title = True, "lgap under full"
    console.chunk(Done(0, 2, 4, 50.0, 3.0))
    console.phase("training")
    console.chunk(Done(1, 4, 4, 25.0, 0.0))
    console.closed()
    shown = capsys.readouterr().err
    assert "training\n" in shown
    assert shown.rstrip().splitlines()[-1].startswith("lgap under full |")
    assert shown.rstrip().endswith("| 4/4, robust 25.0 %, about 0 s left")


@pytest.mark.parametrize("quiet, said", [(0.2, True), (60.0, False)])
def test_a_log_says_what_goes_on_when_a_chunk_takes_long_and_not_otherwise(quiet, said, capsys, monkeypatch):
    monkeypatch.setattr("lgap_bench.logger.console.FIRST", quiet)
    console = Console()
    console.preparing(resolved(["purifier=lgap", "attack=full"]))
    console.step("step", 3, 40)  # before the clock is looked at for the first time
    time.sleep(1.2)
    console.closed()
    lines = capsys.readouterr().err.splitlines()
    assert bool(lines) == said
    assert not said or lines[-1].startswith("lgap under full: step 3 of 40, ")


def test_within_a_chunk_the_time_to_the_last_step_is_told_by_the_pace_of_the_latest_ones():
    pace = Pace()
    assert pace.told("step", 1, 40, 0) == "step 1 of 40"
    assert pace.told("step", 2, 40, 2) == "step 2 of 40"  # too early to say
    assert pace.told("step", 3, 40, 4) == "step 3 of 40, 74 s to step 40"
    assert pace.told("step", 3, 40, 9) == "step 3 of 40, 74 s to step 40"  # told twice
    assert pace.told("scoring", 1, 10, 10) == "scoring 1 of 10"
    assert pace.told("step", 1, 40, 11) == "step 1 of 40"  # of the next chunk
    for k in range(2, 20):  # answered from a journal, at once
        pace.told("step", k, 40, 11)
    for k in range(20, 38):
        pace.told("step", k, 40, 11 + 3600 * (k - 19))
    assert pace.told("step", 38, 40, 11 + 3600 * 19) == "step 38 of 40, 2.0 h to step 40"
    assert pace.told("step", 40, 40, 11 + 3600 * 21) == "step 40 of 40"
    assert pace.told("image", 7, None, 12) == "image 7"


@pytest.mark.parametrize(
    "given, names",
    [
        ([], ["Console"]),
        (["logger=none"], []),
        (["logger=console"], ["Console"]),
        (["logger=[console,none]"], ["Console"]),
        (["logger=[none,console]"], ["Console"]),
    ],
)
def test_the_config_group_chooses_the_loggers(given, names):
    assert [type(logger).__name__ for logger in configured(composed(given).logger).loggers] == names


@pytest.mark.parametrize(
    "config, words",
    [
        (3, r"^logger\.own=3 names no code"),
        ({"_target_": "no.such.Code"}, r"^logger\.own\._target_=no\.such\.Code names no code"),
        ({"_target_": f"{__name__}.Heard", "colour": "red"}, r"^logger\.own: .*does not take these keys"),
        ({"_target_": f"{__name__}.Particular", "colour": "red"}, r"^logger\.own: colour=red is no colour$"),
    ],
)
def test_a_logger_that_cannot_be_what_was_meant_is_refused_in_one_line(config, words):
    with pytest.raises(ValueError, match=words):
        configured({"own": config})


def test_a_logger_that_cannot_start_is_named_and_left_out(capsys):
    loggers = configured({"far": {"_target_": f"{__name__}.Unreachable"}, "near": {"_target_": f"{__name__}.Heard"}})
    assert [type(logger).__name__ for logger in loggers.loggers] == ["Heard"]
    assert capsys.readouterr().err == "lgap-bench: logger far failed and is left out (ConnectionError: no server)\n"


@pytest.mark.parametrize("how", ["--config-dir", "hydra.searchpath"])
def test_a_logger_of_ones_own_is_one_python_file_and_one_yaml_file(how, tmp_path):
    (tmp_path / "own.py").write_text(
        "from pathlib import Path\nfrom lgap_bench.logger.base import Logger\n\n\nclass File(Logger):\n"
        "    def __init__(self, path):\n        self.path = Path(path)\n\n"
        "    def finished(self, record):\n        self.path.write_text(record.folder.name)\n"
    )
    (tmp_path / "conf" / "logger").mkdir(parents=True)
    (tmp_path / "conf" / "logger" / "file.yaml").write_text(
        "file:\n  _target_: own.File\n  path: ${outputs}/said.txt\n"
    )
    outputs, folder = tmp_path / "outputs", tmp_path / "conf"
    found = ["--config-dir", str(folder)] if how == "--config-dir" else [f"hydra.searchpath=[file://{folder}]"]
    command = [sys.executable, "-m", "lgap_bench.cli", "run", *found, *CELL, f"outputs={outputs}"]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(tmp_path)])
    done = subprocess.run(
        [*command, "logger=[console,file]"],
        **{"capture_output": True, "text": True, "env": os.environ | {"PYTHONPATH": paths}, "cwd": tmp_path},
    )
    assert done.returncode == 0, done.stderr
    assert "none under pgd: 4/4" in done.stderr
    assert (outputs / "said.txt").read_text() == only_record(outputs).name
