"""Pages and their one writer, every item of both papers, published values in any unit, and what an empty cell means."""

import csv
import functools
import subprocess
import sys

import pytest
import yaml
from test_paper_tables import ALL, HALF, NONE, N, lines, record

from lgap_bench import CONF
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.identity import identity
from lgap_bench.report import figure, write
from lgap_bench.report.command import KINDS, item
from lgap_bench.report.page import Empty, Figure, Page, Quantity, Table
from lgap_bench.report.pages import paper
from lgap_bench.report.rows import ATTACKS, apart, flattened, settings_line

# As the papers number them; the text of COUP names no figure 3a and gives figure 2c as a table.
ITEMS = {
    "lgap": ("1", "2", "3", "4", "figure1", "figure2"),
    "coup": ("1", "2", "3", "4", "figure1", "figure2a", "figure2b", "figure2c", "figure3b", "figure4a", "figure4b",
             "figure5", "figure6", "cifar100", "salt_and_pepper", "proposition2"),
}  # fmt: skip


def drawing():
    drawn, (axis,) = figure.panels(1)
    axis.plot([0, 1], [2, 3], label="a line")
    figure.legend(drawn)
    return drawn


ROWS = [
    {"row": "a", "paper": "72.0", "robust": 12.345, "seconds": Quantity(3.894, "s", 3)},
    {"row": "b", "paper": "> 64", "robust": Empty.NOT_RUN, "seconds": None},
    {"row": "c", "paper": "+18 points", "robust": Empty.CITED, "seconds": None},
]
PAGE = Page(
    "p", "A title", "Measured on: digits", [Table(("row", "paper", "robust", "seconds"), ROWS, "a caption")],
    figures=[Figure(drawing), Figure(drawing, "second")], notes=["a note"],
)  # fmt: skip


def test_text_markdown_csv_and_pictures_of_one_page_agree(tmp_path):
    files = {path.name: path for path in write.export(PAGE, tmp_path)}
    assert set(files) == {"p.csv", "p.md", "p.png", "p_second.png"} == {path.name for path in tmp_path.iterdir()}
    text, markdown = write.text(PAGE), files["p.md"].read_text()
    for part in ("A title", "Measured on: digits", "a caption", "72.0", "> 64", "+18 points", "3.894 s", "not run",
                 "a note", "`cited` published only", "`-` no such value"):  # fmt: skip
        assert part in text
        assert part in markdown
    assert "| a | 72.0 | 12.3 | 3.894 s |" in markdown
    assert "| a | 72.0 | 12.3 | 3.894 s |" in write.text(PAGE, markdown=True)
    with files["p.csv"].open() as stream:
        exact = list(csv.DictReader(stream))
    assert [row["robust"] for row in exact] == ["12.345", "", ""], "full precision, and numbers alone"
    assert [row["seconds"] for row in exact] == ["3.894", "", ""]
    assert files["p.png"].read_bytes()[:4] == b"\x89PNG"


def test_a_legend_stands_outside_the_plots_and_names_every_line_once():
    drawn, axes = figure.panels(2)
    for axis in axes:
        axis.plot([0, 1], [0, 1], label="the same")
    figure.legend(drawn)
    drawn.canvas.draw()
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["the same"]
    box = legend.get_window_extent()
    assert not any(box.overlaps(axis.get_window_extent()) for axis in axes)


def test_every_item_of_both_papers_is_known():
    for name, items in ITEMS.items():
        assert {f"{name}/{each}" for each in items} <= set(paper.known())


@pytest.mark.parametrize("name", paper.known())
def test_an_item_without_records_says_what_makes_it(name, tmp_path):
    table = paper.load(name)
    if "claims" in table:
        (page,) = item(name, tmp_path)
        assert not page.measured
        assert f"`lgap-bench tables {name.split('/')[0]}" in write.text(page)
        assert {row["verdict"] for row in page.tables[0].rows} == {"not measured here"}
        return
    if any(kind in table for kind in KINDS):
        with pytest.raises(ValueError, match=r"run (make|scripts|lgap-bench tables)"):
            item(name, tmp_path)
        return
    (page,) = item(name, tmp_path)
    text = write.text(page)
    assert not page.measured
    if paper.experiments(table):
        assert "lgap-bench run experiment=" in text
    elif "script" in table:
        module = table["script"].removeprefix("python -m ")
        assert f"made by: python -m {module}" in text
        assert (CONF.parent / f"{module.replace('.', '/')}.py").is_file()
    else:
        assert "nothing to measure" in text


def test_published_seconds_keep_their_unit_and_digits(tmp_path):
    (page,) = item("coup/4", tmp_path)
    assert "11.134 s" in write.text(page)
    assert "0.140 s" in write.text(page)


def test_the_kinds_of_empty_cells_are_told_apart(tmp_path):
    record(tmp_path, "pgd", HALF, [0] * N, 0, "lgap/table1/lgap")
    record(tmp_path, "full", NONE, [0] * N, 0, "lgap/beyond/full", failed=[True] * N)
    (page,) = item("lgap/1", tmp_path, "digits")
    (table,) = page.tables
    rows = {row["row"]: row for row in table.rows}
    assert rows["Hill et al. (cited)"]["robust"] is Empty.CITED, "published only"
    assert rows["caption alone"]["robust"] is Empty.NOT_RUN
    assert rows["caption alone"]["to_run"] == "lgap-bench run experiment=lgap/beyond/caption dataset=digits"
    assert rows["exact gradient"]["robust"] is Empty.FAILED
    assert rows["exact gradient"]["natural"] == 100
    assert rows["caption alone"]["paper_robust"] is None, "no such value: the paper has no such row"
    assert rows["caption alone"]["attack"] == rows["LGAP"]["to_run"] == "", "a column that does not apply is blank"
    with (write.write_csv(page, tmp_path / "t.csv")[0]).open() as stream:
        states = {row["row"]: row["state"] for row in csv.DictReader(stream)}
    assert (states["Hill et al. (cited)"], states["caption alone"], states["LGAP"]) == ("cited", "not run", "measured")


def test_the_settings_are_those_of_the_measurement_not_of_the_title(tmp_path):
    record(tmp_path, "pgd", HALF, [0] * N, 0, "lgap/table1/lgap")
    (page,) = item("lgap/1", tmp_path, "digits")
    assert page.settings == f"Measured on: digits, linf 8/255, n = {N}, 1 seed"
    row = {"records": "x", "dataset": "digits", "norm": "linf", "eps": "48/255", "n": 64, "seeds": 3}
    assert settings_line([row, {**row, "seeds": 1}]) == "Measured on: digits, linf 48/255, n = 64, 1-3 seeds"
    assert any("95.80" in note for note in page.notes)


def test_a_table_on_a_data_set_without_records_shows_the_published_values(tmp_path):
    record(tmp_path, "pgd", HALF, [0] * N, 0, "lgap/table1/lgap")
    (page,) = item("lgap/2", tmp_path, "digits")
    text = write.text(page)
    assert "39.82" in text
    assert "no record of its experiments" in text
    assert not page.measured


def test_the_worst_attack_is_of_the_largest_set_and_says_of_how_many(tmp_path):
    record(tmp_path, "a", ALL, [0.1] * N, 0, "lgap/table1/lgap")
    record(tmp_path, "a", ALL, [0.1] * N, 1, "lgap/table1/lgap")
    record(tmp_path, "b", HALF, [0.2] * N, 0, "lgap/beyond/full")
    record(tmp_path, "c", NONE, [0.9] * N, 0, "lgap/slow/full_strong")
    (line,) = lines(tmp_path, "worst attack per sample")
    assert (line["robust"], line["compared"], line["seeds"]) == (0, 3, 1), "the slow one counts; seed 1 met one alone"
    assert line["attack"] == "worst of 3 (11 asked for)"


def test_a_guidance_hidden_from_the_attacker_counts_as_an_attack_on_the_same_defense(tmp_path):
    for hidden, name in ((False, "beyond/coup_linf_full"), (True, "beyond/coup_linf_detached")):
        guided = {"guidance": {"weight": 1.0, "detach_guidance": hidden}}
        record(tmp_path, f"a{hidden}", HALF, [0.5] * N, 0, f"coup/{name}", purifier=guided)
    (line,) = lines(tmp_path, "COUP, worst attack per sample", "coup/1")
    assert line["compared"] == 2


@functools.cache
def defended(experiment):
    held = flattened({k: v for k, v in identity(resolved([f"experiment={experiment}", "dataset=digits"]), "cpu").items() if k not in ATTACKS})  # fmt: skip
    return {key: value for key, value in held.items() if not key.endswith("guidance.detach_guidance")}


@pytest.mark.parametrize("name", ["lgap/1", "lgap/3", "lgap/4", "coup/1", "coup/2"])
def test_the_worst_attack_counts_every_attack_of_the_table_on_the_same_defense(name):
    rows = yaml.safe_load((CONF / "table" / f"{name}.yaml").read_text())["rows"]
    attacks = {e for row in rows for e in [row.get("experiment"), *row.get("lowest_of", ())] if e}
    defenses = {experiment: defended(experiment) for experiment in attacks}
    for row in rows:
        if row["row" if "row" in row else "section"].endswith("worst attack per sample"):
            first = defended(row["worst_per_image"][0])
            assert {e for e in attacks if defenses[e] == first} <= set(row["worst_per_image"]), row["row"]
            assert all(defended(e) == first for e in row["worst_per_image"] if e not in attacks)


def test_rows_are_told_apart_by_what_differs_among_those_alike():
    settings = [{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 3, "c": 1}]
    assert apart(settings, ["x", "x", "y"]) == [{"a": 1}, {"a": 2}, {}]
    assert apart(settings, [None] * 3)[2] == {"a": 3, "c": 1}


def test_the_measured_network_is_not_called_by_the_papers_architecture(tmp_path):
    config = resolved(["experiment=lgap/table1/lgap", "dataset=digits"])
    record(tmp_path, "pgd", HALF, [0] * N, 0, "lgap/table1/lgap", config={"classifier": config.classifier})
    (line,) = lines(tmp_path, "LGAP")
    assert (line["architecture"], line["paper_architecture"]) == ("WRN-10-1", "WRN-28-10")


def test_every_classifier_says_its_architecture():
    assert resolved(["dataset=digits", "classifier=digits/scratch"]).classifier["_about_"]["architecture"] == "WRN-10-1"
    for file in sorted((CONF / "classifier").rglob("*.yaml")):
        held = yaml.safe_load(file.read_text())
        assert "defaults" in held or "architecture" in held["_about_"], file


def test_a_report_waits_for_no_torch_and_its_reader_may_leave(tmp_path):
    record(tmp_path, "pgd", HALF, [0] * N, 0, "lgap/table1/lgap")
    code = "import sys; import lgap_bench.report.command; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    call = f"{sys.executable} -m lgap_bench.cli report table=lgap/1 outputs={tmp_path} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", call], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "tables" / "lgap-1-digits.md").is_file(), "the files are written, read or not"
