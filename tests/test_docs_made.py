"""The tables of docs/ are made from docs/records/: a number that was typed or edited is found."""

from __future__ import annotations

import json

import pytest
from test_paper_tables import ALL, HALF, N, record

from lgap_bench import demo
from lgap_bench.report.page import AtMost, Empty, Invalid, Page, Quantity, Table
from scripts.docs import blocks, figures, kept, prose
from scripts.docs.gather import gather

NAMES = sorted(file.stem for file in kept.FOLDER.glob("*.json"))
HELD = [page for page in blocks.pages() if blocks.BLOCK.search(page.read_text())]
FILLED = [page for page in HELD if {each.name for each in blocks.blocks(page.read_text())} & set(NAMES)]
LARGEST = 300_000  # bytes of all kept records


@pytest.mark.parametrize("page", blocks.pages(), ids=lambda page: page.name)
def test_every_table_of_a_page_is_what_its_records_say(page):
    text = page.read_text()
    assert blocks.made(text) == text, "run make docs"


@pytest.mark.parametrize("page", FILLED, ids=lambda page: page.name)
def test_a_number_that_was_edited_by_hand_is_found(page):
    text = page.read_text()
    body = next(each["body"] for each in blocks.BLOCK.finditer(text) if blocks.block(each["words"]).name in NAMES)
    place = text.index(body) + next(i for i, letter in enumerate(body) if letter in "12345678")
    edited = text[:place] + str(int(text[place]) + 1) + text[place + 1 :]
    assert blocks.made(edited) == text != edited


def test_kept_records_are_small_and_every_one_stands_on_a_page():
    waiting = {name for page in blocks.pages() for name in blocks.pending(page.read_text())}
    assert blocks.shown() - waiting == set(NAMES)
    assert sum(file.stat().st_size for file in kept.FOLDER.glob("*.json")) < LARGEST


@pytest.mark.parametrize("name, path", [pytest.param(*each, id=each[1].name) for each in figures.pictured()])
def test_a_figure_says_which_rows_it_was_drawn_from(name, path):
    assert figures.sealed(path) == kept.read(name).seal, "run make docs"


@pytest.mark.parametrize("name", NAMES)
def test_a_kept_row_names_its_records_interval_n_and_seeds(name):
    rows = [row for table in kept.read(name).page.tables for row in table.rows if row.get("records")]
    for row in [each for each in rows if isinstance(each.get("robust"), float) and "robust_low" in each]:
        assert row["robust_low"] - 1e-6 <= row["robust"] <= row["robust_high"] + 1e-6
    assert kept.read(name).records
    assert set(" ".join(row["records"] for row in rows).split()) <= set(kept.read(name).records)


def test_a_page_comes_back_as_it_was_kept(tmp_path):
    rows = [
        {"row": "[Ours]", "robust": ""},
        {"row": "a|b", "robust": AtMost(1 / 3), "records": "ab cd", "n": 4, "reasons": "left out"},
        {"row": "c", "robust": Invalid(2.0)},
        {"row": "d", "robust": Empty.CITED},
        {"row": "e", "robust": Quantity(0.5, "s", 3)},
    ]
    page = Page("p", "a title", "digits", [Table(("row", "robust", "gone"), rows, "above", "name")], notes=["a note"])
    made = kept.Made("2026-11-26", "7cf6d3d", "lgap-bench tables lgap/1")
    kept.write("lgap/1", page, made, ["cd", "ab"], tmp_path)
    held = kept.read("p", tmp_path)
    (table,) = held.page.tables
    assert [(type(row["robust"]), str(row["robust"])) for row in table.rows[3:]] == [(Empty, "Empty.CITED"), (Quantity, "0.500 s")]  # fmt: skip
    assert [type(row["robust"]) for row in table.rows[1:3]] == [AtMost, Invalid]
    assert table.rows[1] == {"row": "a|b", "robust": AtMost(0.3333), "records": "ab cd", "n": 4}
    assert (table.caption, table.name, held.made, held.records) == ("above", "name", made, ["ab", "cd"])
    text = blocks.body(blocks.block("p without=gone"), held)
    assert text.splitlines()[-1] == "*Measured 2026-11-26 at commit 7cf6d3d by* `lgap-bench tables lgap/1`"
    assert "| *Ours* |  |\n" in text
    assert "gone" not in text
    assert (table.rows[0].get("gone"), table.rows[0]["robust"]) == (None, "")


def test_records_are_gathered_as_the_report_shows_them(tmp_path):
    record(tmp_path, "pgd", ALL, [0] * N, 0, "lgap/table1/lgap", ["experiment=lgap/table1/lgap"])
    record(tmp_path, "bpda", HALF, [0.5] * N, 0, "lgap/table3/lgap_bpda", ["experiment=lgap/table3/lgap_bpda"])
    found = gather(tmp_path, commit="7cf6d3d", folder=tmp_path / "kept")
    assert [path.stem for path in found] == ["lgap-1-digits", "lgap-3-digits", "lgap-claims", "lgap-figure2"]
    held = kept.read("lgap-1-digits", tmp_path / "kept")
    (line,) = [row for row in held.page.tables[0].rows if row["row"] == "LGAP"]
    assert (line["robust"], line["n"], line["seeds"], line["verdict"]) == (100, N, 1, "not judged")
    assert held.made.command == "lgap-bench tables lgap/1 dataset=digits"
    assert gather(tmp_path, commit="x", folder=tmp_path / "few", shown={"lgap-claims"}) == [
        tmp_path / "few" / "lgap-claims.json"
    ]
    assert found[0].read_bytes() == gather(tmp_path, ["lgap/1"], "7cf6d3d", tmp_path / "again")[0].read_bytes()


def test_the_demos_table_is_gathered_where_all_its_cells_were_measured(tmp_path):
    outputs, names = tmp_path / "out", list(demo.ROWS)
    for place, name in enumerate(names):
        record(outputs, f"attack{place}", HALF, [0.5] * N, 0, f"demo/{name}", [f"experiment=demo/{name}"])
        if name != names[-1]:
            with pytest.raises(ValueError, match="no item that docs/ shows"):
                gather(outputs, ["demo"], "7cf6d3d", tmp_path / "kept")
    gather(outputs, ["demo"], "7cf6d3d", tmp_path / "kept")
    held = kept.read("demo", tmp_path / "kept")
    assert [row["row"] for row in held.page.tables[0].rows] == list(demo.ROWS.values())
    for row in held.page.tables[0].rows:
        assert (row["robust"], row["interval"]) == (50, f"{row['robust_low']:.1f}-{row['robust_high']:.1f}")
    assert held.made.command == "make demo"


def test_a_gathered_page_says_what_its_records_were_asked_for_with(tmp_path):
    for seed in (0, 1):
        words = ["experiment=lgap/table1/lgap", f"seed={seed}", "n=200"]
        record(tmp_path, "pgd", HALF, [0.5] * N, seed, "lgap/table1/lgap", words)
    gather(tmp_path, ["lgap/1"], "7cf6d3d", tmp_path / "kept")
    command = "lgap-bench tables lgap/1 dataset=digits n=200 seed=0,1"
    assert kept.read("lgap-1-digits", tmp_path / "kept").made.command == command


def test_a_kept_record_that_was_edited_is_refused_in_one_line(tmp_path):
    record(tmp_path, "pgd", ALL, [0] * N, 0, "lgap/table1/lgap", ["experiment=lgap/table1/lgap"])
    (file,) = gather(tmp_path, ["lgap/1"], "7cf6d3d", tmp_path)
    content = json.loads(file.read_text())
    content["tables"][0]["rows"][2]["robust"] = 12.0
    file.write_text(json.dumps(content))
    for name, words in (("lgap-1-digits", "not what was gathered"), ("none", "No such file")):
        with pytest.raises(ValueError, match=words) as refused:
            kept.read(name, tmp_path)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text, words",
    [
        ("<!-- made: lgap-1-digits -->\n| 1 |\n", "without its end"),
        ("| 1 |\n<!-- /made -->", "without its marker"),
        ("<!-- made: a -->\n<!-- made: b -->\n<!-- /made -->", "without its end"),
        ("<!-- made: lgap-1-digits color=red -->\n<!-- /made -->", "color is no option"),
        ("<!-- made: nothing -->\n<!-- /made -->", "nothing.json"),
    ],
)
def test_a_marker_that_cannot_be_made_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        blocks.made(text)


def test_nothing_measured_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="no finished record"):
        gather(tmp_path)
    with pytest.raises(ValueError, match="table=lgap/9 is not known"):
        gather(record(tmp_path, "pgd", ALL, [0] * N).folder.parent.parent, ["lgap/9"], "7cf6d3d", tmp_path)


@pytest.mark.parametrize("page", HELD, ids=lambda page: page.name)
def test_numbers_in_marked_sentences_stand_in_the_records(page):
    assert prose.unsupported(page.read_text()) == []


def test_a_number_in_a_sentence_that_no_record_supports_is_found(tmp_path):
    record(tmp_path, "pgd", HALF, [0.5] * N, 0, "lgap/table1/lgap", ["experiment=lgap/table1/lgap"])
    gather(tmp_path, ["lgap/1"], "7cf6d3d", tmp_path)
    mark = "<!-- numbers: lgap-1-digits -->"
    text = f"1. PGD leaves 50.0 %, not\n   51.0, at 8/255, version 0.1.2. {mark}\n2. Another says 12.3.\n\nA third: 100.0 of 7.5 {mark}\n\n50 % or 49 %, of 7 images {mark}\n"
    found = prose.unsupported(text, lambda name: kept.read(name, tmp_path))
    assert [each[-4:].strip() for each in found] == ["51.0", "7.5", "r 49"]


def test_a_typed_block_says_so_and_waits_for_its_records():
    typed = f"<!-- made: nothing columns=row -->\n\n{blocks.PENDING}\n\n| 1.5 |\n<!-- /made -->\n"
    assert blocks.made(typed) == typed
    assert blocks.pending(typed) == {"nothing"}
    assert prose.unsupported(f"{typed}\nIt says 2.5. <!-- numbers: nothing -->") == []
    with pytest.raises(ValueError, match=r"nothing\.json"):
        blocks.made(typed.replace(blocks.PENDING, ""))
    filled = typed.replace("nothing", "lgap-2-digits")
    assert "| 1.5 |" not in blocks.made(filled), "its records are there"
    assert blocks.PENDING not in blocks.made(filled)
