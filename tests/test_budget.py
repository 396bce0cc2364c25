"""Accuracy over the budget on the page, from hand-made records."""

from test_paper_tables import ALL, HALF, NONE, N, record

from lgap_bench.record import records
from lgap_bench.report.browser.budget import budgets, draw
from lgap_bench.report.browser.build import write_page

LGAP = "lgap/table1/lgap"


def test_accuracy_over_the_budget_is_drawn_where_one_attacker_met_several(tmp_path):
    def at(eps, right, step, **facts):
        identity = {"purifier": "lgap", "attack": {"name": "full", "step_size": step}, "n": 64, **facts}
        return record(tmp_path, "full", right, [0.0] * N, experiment=LGAP, facts={"eps": eps}, threat={"eps": eps},
                      **{key: value for key, value in identity.items() if key not in ("attack", "n")}, order=step)  # fmt: skip

    at("8/255", ALL, 0.01)
    assert budgets(records(tmp_path)) == [], "one budget is no curve"
    at("8/256", ALL, 0.011)
    assert budgets(records(tmp_path)) == [], "nor are two that hardly differ"
    at("16/255", HALF, 0.02)
    at("32/255", NONE, 0.04)
    (each,) = budgets(records(tmp_path))
    assert {name: [(row["eps"], row["robust"]) for row in line] for name, line in each.lines.items()} == {
        "full (full)": [("8/256", 100.0), ("8/255", 100.0), ("16/255", 50.0), ("32/255", 0.0)]
    }
    assert draw(each) is not None
    write_page(records(tmp_path), tmp_path / "report.html")
    assert "Accuracy over the budget: lgap + digits/standard, digits, n = 4" in (tmp_path / "report.html").read_text()
