"""`lgap-bench report format=...`: every table in every format, as text that the format shows as it stands."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from contextlib import suppress
from html.parser import HTMLParser

import pytest

from lgap_bench.report import write
from lgap_bench.report.command import item
from lgap_bench.report.latex import escaped, latex
from lgap_bench.report.page import AtMost, Empty, Page, Table, Unmeasured
from lgap_bench.report.pages.paper import known

HARD = 'a_b & 5 % of $x$ {#1} ~ ^ \\ <script>alert("1")</script> ≤ κ 日'
PAGE = Page(
    "p",
    HARD,
    HARD,
    [Table(("row", "robust"), [{"row": HARD, "robust": AtMost(3.14)}, {"row": "b", "robust": Empty.NOT_RUN}])],
)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_every_table_of_every_paper_compiles_in_latex(tmp_path):
    pages = []
    for name in known():
        with suppress(Unmeasured):  # nothing is published of these
            pages += item(name, tmp_path)
    assert len(pages) > 15
    body = "\n".join(latex(page) + "\\clearpage" for page in [*pages, PAGE])
    text = f"\\documentclass{{article}}\\usepackage{{booktabs,graphicx}}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "all.tex").write_text(text)
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def test_what_latex_reads_as_a_command_is_printed():
    assert escaped("5 % of a_b & {c}") == r"5 \% of a\_b \& \{c\}"
    assert escaped("日") == "?"


class Tags(HTMLParser):
    """Names of the tags, and all text."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_a_script_in_a_cell_stays_text_in_html():
    read = Tags()
    read.feed(write.PRINTED["html"](PAGE))
    assert set(read.tags) <= {"h2", "p", "table", "thead", "tbody", "tr", "th", "td", "caption"}
    assert read.text.count("<script>") == 3


@pytest.mark.parametrize("form", sorted(write.PRINTED))
def test_every_format_holds_the_cells_of_the_table(form):
    text = write.PRINTED[form](PAGE)
    assert "3.1" in text
    assert "not run" in text or form == "csv"
    if form == "csv":
        assert next(iter(csv.DictReader(io.StringIO(text)))) == {"row": HARD, "robust": "3.14"}


def report(*words):
    call = [sys.executable, "-m", "lgap_bench.cli", "report", *words]
    return subprocess.run(call, capture_output=True, text=True, timeout=120)


def test_a_format_that_is_not_known_is_one_line(tmp_path):
    done = report("table=lgap/1", "format=pdf", f"outputs={tmp_path}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "format=pdf is not known: use one of text, md, latex, csv, html" in done.stderr


def test_all_tables_where_nothing_was_measured_say_what_measures_some(tmp_path):
    done = report("table=all", f"outputs={tmp_path}")
    assert done.returncode == 1
    assert "no item of a paper was measured" in done.stderr


def test_published_values_are_printed_without_a_record(tmp_path):
    done = report("table=lgap/2", "dataset=digits", f"outputs={tmp_path}", "format=latex")
    assert done.returncode == 0, done.stderr
    assert "58.7" in done.stdout
