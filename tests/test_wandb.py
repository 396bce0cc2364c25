"""What a W&B run holds, without wandb: the record's own numbers, nothing that identifies; settings refused before measuring."""

from __future__ import annotations

import ast
import json
import math
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cells import called, run

from lgap_bench.logger import wandb_clean as clean
from lgap_bench.logger import wandb_file, wandb_run
from lgap_bench.logger.base import Logger, Loggers
from lgap_bench.logger.wandb_settings import Settings, chosen, settings
from lgap_bench.metric.accuracy import accuracy
from lgap_bench.record import Record
from lgap_bench.runtime import files
from lgap_bench.task.single_label import SINGLE_LABEL

ROOT = Path(__file__).parent.parent
CELL = ["purifier=downsample", "attack=pgd", "attack.steps=1", "n=6", "chunk=2", "score_draws=2", "threads=1"]
CAPTIONED = ["purifier=lgap", "attack=bpda", *("attack.steps=1", "attack.confirm_draws=0", "purifier.steps=2")]
OFFLINE = ["logger=[console,wandb]", "logger.wandb.mode=offline"]


class Halfway(Logger):
    """Keeps what the run of a record looks like after each chunk."""

    def __init__(self) -> None:
        self.runs: list[wandb_run.Run] = []

    def started(self, cell, record):
        self.record, self.told = record, {"config": cell.plain(), "state": "running", "phase": "training"}

    def chunk(self, done):
        self.runs.append(wandb_run.of_record(self.record, Settings(), self.told))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, list[wandb_run.Run]]:
    """A finished cell, and its run after each chunk."""
    halfway = Halfway()
    record = run([*CELL, f"outputs={tmp_path_factory.mktemp('plain')}"], Loggers([halfway]))
    return record, halfway.runs


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A finished cell with captions and several draws."""
    given = [
        *CAPTIONED,
        "n=3",
        "chunk=2",
        "score_draws=2",
        "threads=1",
        "experiment=lgap/table1/lgap",
        "dataset=digits",
    ]
    return run([*given, "finetune=none", f"outputs={tmp_path_factory.mktemp('captioned')}"])


def test_a_row_per_chunk_has_the_accuracies_over_all_images_so_far(seen):
    record, _ = seen
    rows, samples = wandb_run.of_record(record, Settings(), {}).rows, record.samples()
    assert [(row["chunk"], row["images"]) for row in rows] == [(0, 2), (1, 4), (2, 6)]
    for row in rows:
        for title, name in (("natural", "clean"), ("robust", "attacked")):
            found = accuracy(SINGLE_LABEL.correct(samples, name)[None, : row["images"]])
            assert (row[title], row[f"{title}_low"], row[f"{title}_high"]) == (found.mean, found.low, found.high)
    summary = record.summary()
    assert [rows[-1][f"robust{end}"] for end in ("", "_low", "_high")] == [
        summary["robust"][key] for key in ("mean", "low", "high")
    ]


def test_the_rows_of_a_cell_that_runs_are_the_first_ones_of_the_finished_cell(seen):
    record, halfway = seen
    whole = wandb_run.of_record(record, Settings(), {}).rows
    for count, found in enumerate(halfway, 1):
        same = [{key: row[key] for key in whole[0] if key in row} for row in found.rows]
        assert same == [{key: row[key] for key in whole[0]} for row in whole[:count]]
        assert found.rows[-1]["samples_per_second"] == pytest.approx(2 / found.rows[-1]["seconds"])
        assert found.summary == {"state": "running", "phase": "training"}
        assert (found.tables, found.pictures, found.artifact, found.failed) == ({}, {}, [], False)


def test_the_times_and_the_memory_of_a_finished_cell_are_shown_where_its_record_has_them(seen, tmp_path):
    import shutil

    copy = Record(Path(shutil.copytree(seen[0].folder, tmp_path / seen[0].folder.name)))
    held = json.loads((copy.folder / "run.json").read_text())
    files.write_json(
        copy.folder / "run.json", {**held, "chunk_seconds": [0.5, 1.0, 2.0], "chunk_peak_memory_mib": [300, 300, 300]}
    )
    rows = wandb_run.of_record(copy, Settings(), {}).rows
    assert [(row["seconds"], row["samples_per_second"], row["peak_memory_mib"]) for row in rows] == [
        (0.5, 4.0, 300.0),
        (1.0, 2.0, 300.0),
        (2.0, 1.0, 300.0),
    ]


def test_samples_whose_attack_failed_do_not_count_as_robust(seen, tmp_path):
    record = Record(tmp_path / "records" / "0")
    chunk = {"label": np.array([1, 2]), "failed": np.array([True, False]), "seconds": np.asarray(1.0)}
    chunk |= {"clean_prediction": np.array([[1, 2]]), "attacked_prediction": np.array([[1, 0]])}
    files.write_npz(record.folder / "chunks" / "00000.npz", chunk)
    told = {"config": seen[0].config(), "state": "running"}
    (row,) = wandb_run.of_record(record, Settings(), told).rows
    assert (row["natural"], row["robust"]) == (100.0, 0.0)
    files.write_npz(record.folder / "chunks" / "00000.npz", {**chunk, "failed": np.array([True, True])})
    (row,) = wandb_run.of_record(record, Settings(), told).rows
    assert "robust" not in row, "nothing is known of it"


def test_of_an_image_with_several_labels_each_of_them_is_right_also_while_the_cell_runs(seen, tmp_path):
    record = Record(tmp_path / "records" / "0")
    chunk = {"label": np.array([1, 2]), "failed": np.array([False, False]), "seconds": np.asarray(1.0)}
    chunk |= {"clean_prediction": np.array([[4, 2]]), "attacked_prediction": np.array([[4, 0]])}
    chunk |= {"clean_right": np.array([[True, True]]), "attacked_right": np.array([[True, False]])}
    files.write_npz(record.folder / "chunks" / "00000.npz", chunk)
    (row,) = wandb_run.of_record(record, Settings(), {"config": seen[0].config(), "state": "running"}).rows
    assert (row["natural"], row["robust"]) == (100.0, 50.0)


def test_a_chunk_that_cannot_be_read_is_left_out(seen, tmp_path):
    record = Record(tmp_path / "records" / "0")
    (record.folder / "chunks").mkdir(parents=True)
    (record.folder / "chunks" / "00000.npz").write_text("no archive")
    assert wandb_run.of_record(record, Settings(), {"config": seen[0].config()}).rows == []


def test_the_summary_is_the_records_own_flat_with_the_verdict_that_lower_makes(seen, tmp_path):
    import shutil

    record = Record(Path(shutil.copytree(seen[0].folder, tmp_path / seen[0].folder.name)))
    record.note_lower("apgd", "full", 1.5, "other")
    found, summary = wandb_run.of_record(record, Settings(), {}).summary, record.summary()
    for title in ("natural", "robust"):
        assert {key: found[f"{title}/{key}"] for key in summary[title]} == summary[title]
    left_out = {"classes", "reasons", "verdict"}
    for key, value in summary.items():
        if key not in left_out and not isinstance(value, dict | list) and value is not None:
            assert found[key] == value, key
    assert found["state"] == "finished"
    assert (found["verdict"], found["lower/attack"], found["lower/robust"]) == ("upper bound", "apgd", 1.5)
    assert found["reasons"] == "; ".join(record.verdict()[1])
    assert found["run/seconds"] == record.run()["seconds"]
    assert all(isinstance(value, str | int | float | bool) for value in found.values())


def test_the_tables_hold_every_sample_and_caption_of_the_record(captioned):
    samples, found = captioned.samples(), wandb_run.of_record(captioned, Settings(), {})
    table = found.tables["samples"]
    assert set(table.columns) == {*samples, "label_name"}
    for i, row in enumerate(table.rows):
        cells = dict(zip(table.columns, row, strict=True))
        assert cells["label_name"] == captioned.classes()[samples["label"][i]]
        for name, column in samples.items():
            value, cell = column[i], cells[name]
            if isinstance(value, list):
                assert [float(part) for part in cell.split()] == pytest.approx(value, rel=1e-5, nan_ok=True)
            else:
                assert cell == value or (cell is None and math.isnan(value))
    captions = found.tables["captions"]
    said = [row[captions.columns.index("attacked_caption")] for row in captions.rows]
    assert said == samples["attacked_caption"]
    assert len(wandb_run.of_record(captioned, Settings(rows=2), {}).tables["samples"].rows) == 2
    assert wandb_run.of_record(captioned, Settings(rows=0), {}).tables == {}


def test_a_run_is_named_grouped_and_tagged_by_its_cell_and_the_users_own_words_win(captioned, seen):
    found = wandb_run.of_record(captioned, Settings(tags=("mine", "digits")), {})
    assert (found.id, found.group, found.job_type) == (captioned.folder.name, "lgap/table1", "lgap")
    assert found.name == f"lgap under {captioned.summary()['attack_name']}, seed 0"
    assert found.tags == ("digits", f"view {captioned.summary()['view_name']}", "linf 48/255", "mine")
    assert wandb_run.of_record(seen[0], Settings(), {}).group is None
    own = wandb_run.of_record(seen[0], Settings(group="g", job_type="j"), {"host": "h", "slurm": {"SLURM_JOB_ID": "7"}})
    assert (own.group, own.job_type) == ("g", "j")
    assert (own.config["host"], own.config["slurm"]) == ("h", {"SLURM_JOB_ID": "7"})


def test_a_failed_cell_ends_as_failed_with_its_sentence_and_a_whole_record_never_does(seen, tmp_path):
    told = {"config": seen[0].config(), "state": "failed", "error": f"record {tmp_path}/x is damaged", "phase": "p"}
    found = wandb_run.of_record(Record(tmp_path / "records" / "0"), Settings(), told)
    assert (found.failed, found.summary) == (True, {"state": "failed", "error": "record x is damaged"})
    assert wandb_run.of_record(seen[0], Settings(), told).summary["state"] == "finished"


def test_the_files_that_are_sent_are_those_without_paths_unless_asked(captioned):
    few = {file.name for file in wandb_run.of_record(captioned, Settings(), {}).artifact}
    assert few == {"identity.json", "samples.parquet", "summary.json", "run.json", "pictures.npz", "grid.png"}
    more = {file.name for file in wandb_run.of_record(captioned, Settings(paths=True), {}).artifact}
    assert more - few == {"config.yaml", *(file.name for file in (captioned.folder / "asked").glob("*.json"))}
    assert wandb_run.of_record(captioned, Settings(artifact=False), {}).artifact == []


def test_nothing_that_is_sent_of_a_cell_names_the_machine_its_user_or_a_folder(captioned):
    found = wandb_run.of_record(captioned, Settings(), {})
    text = repr(found.config) + repr(found.summary) + repr(found.rows) + repr(found.tables)
    text += "".join((captioned.folder / name).read_text() for name in ("identity.json", "run.json", "summary.json"))
    for word in (str(captioned.folder.parents[1]), str(Path.cwd()), str(Path.home()), f"'{socket.gethostname()}'"):
        assert word not in text
    assert not {"outputs", "data", "checkpoints", "_about_"} & found.config.keys()
    assert "_about_" not in text


CONFIG = {
    "outputs": "/scratch/alice/out",
    "data": "data",
    "checkpoints": "/models",
    "dry": False,
    "dataset": {"root": "data/imagenet/val", "_about_": {"shape": [3]}, "caption": "a photo of a {label}"},
    "classifier": {"weights": "embedded:digits/standard", "file": "/models/robustbench/Standard.pt"},
    "prior": {"weights": "private/alice/sd"},
    "threat": {"eps": "8/255"},
    "experiment_name": "lgap/table1/lgap",
    "clip": None,
    "own": ["~/x/words.txt", "../y/z", "https://a.org/b/c", "eps/4"],
}


def test_of_a_path_in_a_config_the_last_part_alone_is_sent():
    assert clean.config(CONFIG, paths=False) == {
        "dataset": {"root": "val", "caption": "a photo of a {label}"},
        "classifier": {"weights": "embedded:digits/standard", "file": "Standard.pt"},
        "prior": {"weights": "sd"},
        "threat": {"eps": "8/255"},
        "experiment_name": "lgap/table1/lgap",
        "clip": None,
        "own": ["words.txt", "z", "https://a.org/b/c", "eps/4"],
    }
    assert clean.config(CONFIG, paths=True)["outputs"] == "/scratch/alice/out"


@pytest.mark.parametrize(
    "said, sent",
    [
        ("record chunk /a/b/c.npz is damaged: delete this file", "record chunk c.npz is damaged: delete this file"),
        ("'/home/alice/x y' is odd", "'x y' is odd"),
        ("no file (~/a/b.pt), none in C:\\Users\\alice\\b.pt", "no file (b.pt), none in b.pt"),
        (
            "threat.eps=8/255 and eps/4, experiment lgap/table1/lgap",
            "threat.eps=8/255 and eps/4, experiment lgap/table1/lgap",
        ),
        ("see https://a.org/b/c", "see https://a.org/b/c"),
        (f"{Path.home()} is full", "~ is full"),
    ],
)
def test_of_a_path_in_a_sentence_the_last_part_alone_is_sent(said, sent):
    assert clean.text(said, paths=False) == sent
    assert clean.text(said, paths=True) == said


@pytest.mark.parametrize(
    "variable, value, key, found",
    [
        ("WANDB_MODE", "disabled", "mode", "disabled"),
        ("WANDB_MODE", "dryrun", "mode", "offline"),
        ("WANDB_DISABLED", "true", "mode", "disabled"),
        ("WANDB_PROJECT", "own", "project", "own"),
        ("WANDB_ENTITY", "team", "entity", "team"),
        ("WANDB_RUN_GROUP", "g", "group", "g"),
        ("WANDB_JOB_TYPE", "j", "job_type", "j"),
        ("WANDB_TAGS", "a, b", "tags", ("a", "b")),
    ],
)
def test_the_users_own_variables_win_over_the_config(variable, value, key, found):
    given = {"mode": "online", "project": "p", "entity": "e", "group": "x", "job_type": "y", "tags": ["z"]}
    assert getattr(settings(given, {variable: value}), key) == found
    assert Settings.read(settings(given, {}).plain()) == settings(given, {})


@pytest.mark.parametrize(
    "word, told",
    [
        ("mode=onlin", "is not in online | offline | disabled"),
        ("project=a/b", "project=a/b has / in it"),
        ("project='a#b'", "project=a#b has # in it"),
        (f"project={'p' * 129}", "project has 129 characters"),
        ("project=''", "names no project"),
        ("entity=me/lgap", "has / in it"),
        (f"tags=[{'t' * 65}]", "is not 1 to 64 characters"),
        ("tags=one", "is not a list"),
        ("rows=-1", "rows=-1 is not in int [0, 200000]"),
        ("limit=0", "limit=0 is not in [1, 86400]"),
        ("wait=-1", "wait=-1 is not in [0, 3600] or null"),
        ("paths=1", "paths=1 is not in true | false"),
    ],
)
def test_what_wandb_would_refuse_is_refused_in_one_line_before_anything_is_measured(word, told, tmp_path):
    done = called("run", *CELL, "logger=[console,wandb]", f"logger.wandb.{word}", f"outputs={tmp_path / 'out'}")
    (line,) = done.stderr.strip().splitlines()
    assert (done.returncode, told in line) == (1, True), line
    assert not (tmp_path / "out").exists()


def test_a_variable_that_wandb_would_refuse_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_PROJECT", "a:b")
    done = called("run", *CELL, *OFFLINE, f"outputs={tmp_path / 'out'}")
    assert "WANDB_PROJECT=a:b has : in it" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_sweep_knows_whether_wandb_is_among_its_loggers(monkeypatch):
    group = {"console": {}, "wandb": {"_target_": "x", "mode": "offline", "tags": ["t"]}}
    assert chosen(group) == Settings(mode="offline", tags=("t",))
    assert chosen({"console": {}}) is None
    assert chosen(None) is None
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert chosen(group) is None


def test_only_a_slurm_job_waits_for_wandb_at_its_end_unless_it_is_asked_to(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert (Settings().patience, Settings(wait=3).patience) == (0, 3)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert (Settings().patience, Settings(wait=0).patience) == (10, 0)


def test_the_process_that_measures_never_imports_wandb(tmp_path):
    code = (
        "import sys; from lgap_bench.cli import main; sys.argv = ['lgap-bench', *sys.argv[1:]]; main();"
        "sys.exit(any(name.split('.')[0] == 'wandb' for name in sys.modules))"
    )
    words = ["run", *CELL, *OFFLINE, f"outputs={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_one_module_alone_imports_wandb():
    importing = set()
    for file in (ROOT / "lgap_bench").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "wandb" for name in names):
                importing.add(file.name)
    assert importing == {"wandb_write.py"}


@pytest.mark.parametrize("size", [0, 1, 32 * 1024 - 15, 32 * 1024 - 14, 32 * 1024 - 13, 32 * 1024, 100_000])
def test_a_run_file_is_read_as_it_was_written_whatever_the_size_of_its_records(size, tmp_path):
    records = [b"first", bytes(range(256)) * (size // 256) + b"x" * (size % 256), b"last"]
    wandb_file.write(tmp_path / "x", b":W&B\x00\x00\x00", records)
    assert list(wandb_file.read(tmp_path / "x")) == records
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[:-1])
    assert list(wandb_file.read(tmp_path / "x")) == records[:-1], "what a kill has cut"
    (tmp_path / "x").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="is not what W&B writes"):
        list(wandb_file.read(tmp_path / "x"))


def test_csv_has_a_line_per_chunk_and_one_head_for_all_cells(tmp_path):
    import csv

    from lgap_bench.logger.csv import COLUMNS, Csv

    for seed in (0, 1):
        run([*CELL, f"seed={seed}", f"outputs={tmp_path}"], Loggers([Csv()]))
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["seed"], row["images"], row["n"]) for row in rows] == [
        (seed, images, "6") for seed in "01" for images in "246"
    ]
    assert {row["record"] for row in rows} == {folder.name for folder in (tmp_path / "records").iterdir()}


def test_tensorboard_keeps_the_progress_or_says_which_package_is_missing(tmp_path):
    import importlib.util

    from lgap_bench.logger.configured import configured

    group = {"tensorboard": {"_target_": "lgap_bench.logger.tensorboard.Tensorboard"}}
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(ValueError, match="package tensorboard is missing"):
            configured(group)
        return
    record = run([*CELL, f"outputs={tmp_path}"], configured(group))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held = EventAccumulator(str(tmp_path / "tensorboard" / record.folder.name)).Reload()
    assert [event.step for event in held.Scalars("robust so far")] == [2, 4, 6]
    assert held.Scalars("robust")[0].value == pytest.approx(record.summary()["robust"]["mean"], rel=1e-6)
