"""A record answers only for what made it: edits, copies, halves and leftovers are one line with the mend, or go."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from cells import SMALL, called, only_record, run
from workers import GONE

from lgap_bench.evaluation.lower import compare
from lgap_bench.record import Record
from lgap_bench.runtime import files

CELL = ["purifier=none", "attack=pgd", "keep_images=true", *SMALL]  # two chunks of four
OTHER = ["purifier=none", "attack=pgd", "keep_images=true", "seed=1", *SMALL]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with one finished record; copied by every test, since most damage it."""
    outputs = tmp_path_factory.mktemp("made") / "out"
    run([*CELL, f"outputs={outputs}"])
    return outputs


@pytest.fixture
def outputs(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


@pytest.fixture
def folder(outputs: Path) -> Path:
    return only_record(outputs)


def again(outputs: Path, *more: str) -> str:
    """The same call once more: its stderr where it refuses in one line, empty where it answers."""
    done = called("run", *CELL, *more, f"outputs={outputs}", "logger=none")
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stdout == ""
        return done.stderr
    return ""


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    files.write_json(file, {**content, **changes})


def robust(value: float, file: Path) -> dict[str, float]:
    return {**json.loads(file.read_text())["robust"], "mean": value}


# Finished records


def test_an_edited_number_is_refused_by_run_and_report_and_gone_with_the_folder(outputs: Path, folder: Path) -> None:
    whole = (folder / "summary.json").read_bytes()
    edit(folder / "summary.json", robust=robust(99.9, folder / "summary.json"))
    said = again(outputs)
    assert f"record {folder} is damaged (summary.json was edited): delete this folder" in said
    reported = called("report", f"outputs={outputs}")
    assert (reported.returncode, reported.stderr) == (1, said)
    shutil.rmtree(folder)
    assert again(outputs) == ""
    assert (folder / "summary.json").read_bytes() == whole, "computed anew, it is the same"


def test_an_edit_that_takes_its_own_seal_away_is_seen_in_the_samples(outputs: Path, folder: Path) -> None:
    file = folder / "summary.json"
    edit(file, robust=robust(99.9, file))
    edit(file, **_resealed(json.loads(file.read_text())))
    assert "summary.json says robust 99.9, samples.parquet" in again(outputs)
    held = json.loads(file.read_text())
    files.write_json(file, {key: value for key, value in held.items() if key != "summary_id"})
    assert "summary.json was edited" in again(outputs)


def _resealed(summary: dict[str, Any]) -> dict[str, str]:
    return {"summary_id": files.content_id({key: value for key, value in summary.items() if key != "summary_id"})}


@pytest.mark.parametrize("name", ["identity.json", "config.yaml", "samples.parquet", "summary.json"])
@pytest.mark.parametrize("how", ["edited", "cut off", "emptied"])
def test_whatever_a_summary_was_made_from_is_the_same_when_it_is_read(outputs, folder, name, how):
    file = folder / name
    content = file.read_bytes()
    file.write_bytes({"edited": content + b" \n#", "cut off": content[: len(content) // 2], "emptied": b""}[how])
    said = again(outputs)
    assert f"record {folder} is damaged" in said
    assert "delete this folder, the cell is computed again" in said
    if name != "summary.json":
        assert name in said
        file.unlink()
        assert name in again(outputs), "gone altogether"


def test_rows_that_are_doubled_or_of_another_number_are_counted(outputs: Path, folder: Path) -> None:
    table = parquet.read_table(folder / "samples.parquet")
    doubled = table.take([0, 0, 2, 3, 4, 5, 6, 7])
    assert "samples.parquet is not the one its summary was made from" in _replaced(outputs, folder, doubled)
    for rows, told in (([0, 0, 2, 3, 4, 5, 6, 7], "7 samples in 8 rows"), (range(4), "4 samples in 4 rows")):
        said = _replaced(outputs, folder, table.take(list(rows)), sealed=True)
        assert f"samples.parquet has {told}, n of summary.json is 8" in said


def _replaced(outputs: Path, folder: Path, table: Any, sealed: bool = False) -> str:
    """What the call says of other samples, even where their seal was made anew."""
    parquet.write_table(table, folder / "samples.parquet")
    if sealed:
        edit(folder / "summary.json", samples_sha256=Record(folder)._sha256("samples.parquet"))
        edit(folder / "summary.json", **_resealed(json.loads((folder / "summary.json").read_text())))
    return again(outputs)


def test_a_copy_is_refused_by_its_name_and_never_merged_as_a_second_seed(outputs: Path, folder: Path) -> None:
    copy = Path(shutil.copytree(folder, folder.with_name("copy")))
    done = called("report", f"outputs={outputs}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert f"record {copy} is damaged" in done.stderr
    assert "copied or renamed" in done.stderr
    assert again(outputs) == "", "the record itself still answers"
    shutil.rmtree(copy)
    assert called("report", f"outputs={outputs}").returncode == 0


def test_a_record_that_was_renamed_to_another_cells_id_does_not_answer_for_it(outputs: Path, folder: Path) -> None:
    run([*OTHER, f"outputs={outputs}", "logger=none"])
    (other,) = [each for each in folder.parent.iterdir() if each != folder]
    shutil.rmtree(folder)
    other.rename(folder)
    assert "identity.json is not the one that the folder is named by" in again(outputs)


@pytest.mark.parametrize("name, mend", [("run.json", "delete this folder"), ("lower.json", "delete this file")])
@pytest.mark.parametrize("content", ["", "{", "[1]", "{}"])
def test_notes_beside_the_summary_that_are_damaged_are_one_line(outputs, folder, name, mend, content):
    (folder / name).write_text(content)
    said = again(outputs)
    assert name in said
    assert mend in said


def test_a_damaged_request_names_its_file_and_goes_with_it(outputs: Path, folder: Path) -> None:
    asked = folder / "asked" / "0123456789abcdef.json"
    Record(folder).request("lgap/table1/lgap", [])
    asked.write_text("{")
    done = called("report", "table=lgap/1", f"outputs={outputs}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{asked} is damaged" in done.stderr
    asked.unlink()
    assert called("report", "table=lgap/1", f"outputs={outputs}").returncode == 0


def test_cut_off_pictures_are_one_line_where_they_have_to_be_drawn(outputs: Path, folder: Path) -> None:
    pictures = folder / "pictures.npz"
    pictures.write_bytes(pictures.read_bytes()[:-200])
    assert again(outputs) == "", "the picture is drawn already"
    (folder / "grid.png").unlink()
    said = again(outputs)
    assert f"{pictures} is damaged" in said
    assert "delete this file" in said


def test_a_damaged_record_of_somebody_else_does_not_stop_a_cell(outputs: Path, folder: Path) -> None:
    (folder / "identity.json").write_text("{")
    done = run([*OTHER, f"outputs={outputs}", "logger=none"])
    compare(done, outputs)
    assert done.lower() is None


def test_a_record_of_0_1_still_answers_and_its_numbers_are_those_of_its_samples(outputs: Path, folder: Path) -> None:
    file = folder / "summary.json"
    new = ("identity_sha256", "config_sha256", "summary_id", "verdict", "reasons", "classes")
    old = {key: value for key, value in json.loads(file.read_text()).items() if key not in new}
    files.write_json(file, old)
    assert again(outputs) == ""
    assert Record(folder).verdict() == ("not judged", [])
    assert "not judged" in called("run", *CELL, f"outputs={outputs}").stdout
    assert called("report", f"outputs={outputs}").returncode == 0
    edit(file, robust=robust(99.9, file))
    assert "summary.json says robust 99.9" in again(outputs)


# Chunks


@pytest.fixture(scope="module")
def whole(made: Path) -> dict[str, bytes]:
    """What the cell's record holds when nothing stops it."""
    return contents(only_record(made))


def contents(folder: Path) -> dict[str, bytes]:
    names = ("samples.parquet", "summary.json", "identity.json", "pictures.npz", "images.npz")
    return {name: (folder / name).read_bytes() for name in names}


class Stop(Exception):
    """Ends a cell as a kill would, after some chunks."""


def stopped(outputs: Path, cell: list[str], monkeypatch: pytest.MonkeyPatch, after: int = 2) -> Path:
    """A record whose chunks are there and whose summary is not."""
    with monkeypatch.context() as patch:
        patch.setattr(Record, "finish", lambda *given: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            run([*cell, f"outputs={outputs}", "logger=none"])
    folder = only_record(outputs)
    assert len(list((folder / "chunks").glob("*.npz"))) == after
    return folder


def halved(folder: Path, other: Path) -> None:
    with np.load(folder / "chunks" / "00001.npz") as arrays:
        kept = {name: value[..., :2] if name in ("id", "label") else value for name, value in arrays.items()}
    np.savez(folder / "chunks" / "00001.npz", **kept)


def one_column_halved(folder: Path, other: Path) -> None:
    with np.load(folder / "chunks" / "00001.npz") as arrays:
        kept = {name: value[:2] if name == "linf" else value for name, value in arrays.items()}
    np.savez(folder / "chunks" / "00001.npz", **kept)


def made_right(folder: Path, other: Path) -> None:
    with np.load(folder / "chunks" / "00001.npz") as arrays:
        kept = dict(arrays)
    right = np.broadcast_to(kept["label"], kept["attacked_prediction"].shape)
    np.savez(folder / "chunks" / "00001.npz", **{**kept, "attacked_prediction": right})


def first_copied(folder: Path, other: Path) -> None:
    shutil.copy(folder / "chunks" / "00000.npz", folder / "chunks" / "00001.npz")


def of_another_record(folder: Path, other: Path) -> None:
    shutil.copy(other / "chunks" / "00001.npz", folder / "chunks" / "00001.npz")


def cut_off(folder: Path, other: Path) -> None:
    file = folder / "chunks" / "00001.npz"
    file.write_bytes(file.read_bytes()[:-300])


def a_page(folder: Path, other: Path) -> None:
    (folder / "chunks" / "00001.npz").write_text("<html>404: Not Found</html>")


def emptied(folder: Path, other: Path) -> None:
    (folder / "chunks" / "00001.npz").write_bytes(b"")


DAMAGE = [halved, one_column_halved, made_right, first_copied, of_another_record, cut_off, a_page, emptied]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two outputs folders whose cells were stopped before their summary."""
    base = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patch:
        for name, cell in (("own", CELL), ("other", OTHER)):
            stopped(base / name, cell, patch)
    return base / "own", base / "other"


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_chunk_is_named_and_without_it_the_cell_resumes_to_the_same_record(half, whole, tmp_path, damage):
    outputs = Path(shutil.copytree(half[0], tmp_path / "out"))
    folder = only_record(outputs)
    damage(folder, only_record(half[1]))
    chunk = folder / "chunks" / "00001.npz"
    said = again(outputs)
    assert str(chunk) in said
    assert "delete this file, it is computed again" in said
    assert (folder / "chunks" / "00000.npz").exists(), "what is whole stays"
    chunk.unlink()
    assert again(outputs) == ""
    assert contents(folder) == whole


# What kills leave


def test_leftovers_beside_a_finished_record_go_with_the_next_call(outputs: Path, folder: Path) -> None:
    (folder / "chunks").mkdir()
    (folder / "chunks" / "00000.npz").write_bytes(b"anything")
    for name in ("summary.json", "samples.parquet"):
        (folder / f"{name},{GONE.name}.part").write_bytes(b"half")
    (folder / "grid.png").unlink()
    (outputs / "locks").mkdir()
    (outputs / "locks" / f"{folder.name}.lock").touch()
    assert again(outputs) == ""
    assert not (folder / "chunks").exists()
    assert not list(outputs.rglob("*.part"))
    assert (folder / "grid.png").exists()
    assert not (outputs / "locks").exists()


def test_an_empty_folder_under_a_cells_name_is_filled(outputs: Path, folder: Path) -> None:
    held = contents(folder)
    shutil.rmtree(folder)
    (folder / "chunks").mkdir(parents=True)
    (folder / f"identity.json,{GONE.name}.part").write_bytes(b"{")
    assert again(outputs) == ""
    assert contents(folder) == held
    assert not list(folder.glob("*.part"))


@pytest.mark.slow
def test_a_killed_cell_leaves_a_lease_that_the_next_call_takes(tmp_path: Path) -> None:
    words = ["run", *CELL, "attack.steps=500", f"outputs={tmp_path}"]
    process = subprocess.Popen([sys.executable, "-m", "lgap_bench.cli", *words], stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("locks/*-00001.lock")):  # its second chunk is being computed
        assert process.poll() is None, "the cell ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((tmp_path / "locks").glob("*.lock")), "killed too late to show anything"
    assert list(tmp_path.glob("records/*/chunks/00000.npz"))
    done = called(*words)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "locks").exists()
    assert not (only_record(tmp_path) / "chunks").exists()
