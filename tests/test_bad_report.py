"""Bad input of report, verify, pack and robustbench: one line that names the word or the file, and no traceback."""

from __future__ import annotations

import json
import shutil

import pytest
from cells import called
from test_paper_tables import ALL, N, record

from lgap_bench.record import Record
from lgap_bench.runtime.files import content_id


@pytest.fixture
def outputs(tmp_path):
    record(tmp_path / "out", "pgd", ALL, [0] * N, 0, "lgap/table1/lgap")
    return tmp_path / "out"


def one_line(*words: str) -> str:
    """What a call says that is refused."""
    done = called(*words)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stderr.startswith("lgap-bench: "), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "words, said",
    [
        (["table=lgap/9"], "table=lgap/9 is not known: use one of "),
        (["table=lgap/1", "format=pdf"], "format=pdf is not known: use one of text"),
        (["format=pdf"], "format=pdf is not known: use one of text"),
        (["table=lgap/1", "dataset=mnist"], "dataset=mnist is not known: use one of "),
        (["dataset=cifar10"], "dataset=cifar10: no record on it in "),
        (["html=report.html", "dataset=cifar10"], "there are digits"),
        (["table=lgap/1", "paired=maybe"], "paired=maybe is not known"),
        (["--colour"], "unrecognized arguments: --colour: see `lgap-bench report --help`"),
        (["table=lgap/1", "colour=red", "--markdown"], "colour=red is not a key of report"),
        (["table=lgap/1", "table="], "table= is not a key of report"),
        (["html=/nowhere/at/all/report.html"], "there is no folder /nowhere/at/all, make it first"),
        (["html=."], ". is a folder: name a file in it"),
        (["html=/proc/report.html"], "/proc/report.html cannot be written"),
        (["table=all", "html=/proc/report.html"], "/proc/report.html cannot be written"),
    ],
)
def test_a_word_of_report_that_means_nothing(words, said, outputs):
    assert said in one_line("report", f"outputs={outputs}", *words)


@pytest.mark.parametrize("words", [[], ["--captions"], ["html=report.html"], ["table=all"], ["html=report.html", "table=lgap/1"]])  # fmt: skip
def test_a_report_with_no_record(words, tmp_path):
    assert str(tmp_path / "records") in one_line("report", f"outputs={tmp_path}", *words)


def test_a_folder_that_cannot_be_written(outputs):
    (outputs / "tables").write_text("a file where the tables' folder would be")
    assert str(outputs / "tables") in one_line("report", f"outputs={outputs}", "table=lgap/1")
    assert "/proc/all.csv" in one_line("report", f"outputs={outputs}", "--csv", "/proc/all.csv")


def folder(outputs):
    (found,) = (outputs / "records").iterdir()
    return found


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_record_of_0_1_is_shown_as_not_judged(outputs):
    own = folder(outputs)
    edit(own / "summary.json", lambda held: [held.pop(key) for key in ("identity_sha256", "summary_id")])
    done = called("report", f"outputs={outputs}")
    assert done.returncode == 0, done.stderr
    assert "not judged" in done.stdout
    assert called("report", f"outputs={outputs}", "table=lgap/1", f"html={outputs / 'one.html'}").returncode == 0


@pytest.mark.parametrize("words", [["report"], ["report", "table=all"], ["report", "html=x.html"], ["report", "table=lgap/1"]])  # fmt: skip
@pytest.mark.parametrize("harm", ["lacks", "cut", "empty", "list", "samples", "request"])
def test_a_record_that_cannot_answer_is_named(words, harm, outputs):
    own = folder(outputs)
    if harm == "lacks":  # of a format that nobody knows: sealed as it is, without what a row needs
        edit(own / "summary.json", lambda held: [held.pop("attack_name"), held.pop("summary_id"), held.update(summary_id=content_id(held))])  # fmt: skip
    elif harm == "samples":
        (own / "samples.parquet").write_bytes((own / "samples.parquet").read_bytes()[:100])
    elif harm == "request":
        next((own / "asked").iterdir()).write_text("{")
    else:
        (own / "summary.json").write_text({"cut": '{"n": 4', "empty": "", "list": "[]"}[harm])
    if harm == "request" and words == ["report"]:
        return  # a table of all records asks nobody who wanted them
    said = one_line(*words, f"outputs={outputs}")
    assert str(own) in said
    assert "is damaged" in said
    assert ("summary.json: no mapping with attack_name, " in said) == (harm in ("lacks", "list"))


@pytest.mark.parametrize("command", ["verify", "pack", "robustbench"])
def test_what_is_no_record(command, outputs, tmp_path):
    assert "does not exist" in one_line(command, str(tmp_path / "none.tar.gz"))
    (tmp_path / "cut.tar.gz").write_bytes(b"\x1f\x8b\x08" + b"\0" * 40)
    assert "cut.tar.gz" in one_line(command, str(tmp_path / "cut.tar.gz"))
    shutil.rmtree(folder(outputs) / "asked")
    edit(folder(outputs) / "summary.json", lambda held: held.pop("attack_name"))
    assert folder(outputs).name in one_line(command, str(folder(outputs)))


def test_a_summary_says_what_it_lacks(outputs):
    edit(folder(outputs) / "summary.json", lambda held: held.pop("eps"))
    with pytest.raises(ValueError, match=r"summary.json: no mapping with attack_name, dataset_name, eps, n"):
        Record(folder(outputs)).summary()
