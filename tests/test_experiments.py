"""Every experiment of a paper: composes and passes a dry check at both scales, runs in miniature, stands in a table."""

import pytest
import yaml
from cells import called
from test_presets import shorten

from lgap_bench import CONF
from lgap_bench.cell.compose import composed, resolved
from lgap_bench.cell.dry import dry
from lgap_bench.measure import run_cell

EXPERIMENTS = sorted(
    p.relative_to(CONF / "experiment").with_suffix("").as_posix() for p in (CONF / "experiment").rglob("*.yaml")
)
KNOWN = "known_answer/"  # no paper's rows: scripts/known_answers.py holds them against the answers
MINIATURE = [
    name for name in EXPERIMENTS if name.startswith("miniature/")
]  # rows of lgap/miniature that the demo has not
PAPERS = [name for name in EXPERIMENTS if not name.startswith(("demo/", "miniature/"))]
TABLES = sorted((CONF / "table").rglob("*.yaml"))
SWEPT, SEVERAL = ("sweep", "compare", "curve", "strata"), ("worst_per_image", "lowest_of")
SCENES = "conditioned_denoising/"  # the paper whose miniature they are; of the others it is digits
UNTRAINED = ["conditioned_denoising/ablation/rt_detr"]  # the miniature has no RT-DETR
FEW = {"steps": 1, "n_iter": 2, "n_queries": 5, "draws": 2, "restarts": 1, "confirm_draws": 2, "select_draws": 2}


@pytest.mark.parametrize("name", PAPERS)
def test_every_experiment_passes_a_dry_check_at_paper_scale_without_weights(name):
    cell = resolved([f"experiment={name}"])
    assert cell.names.dataset not in ("digits", "scenes")
    text = dry(cell)
    assert text.startswith(f"{name}: ")
    assert cell.names.dataset in text.split("missing here")[1], "the paper's images are not here, and it says so"


# AutoAttack on a purifier takes minutes even when it is cut short; it is composed above, and tests/test_autoattack.py runs it.
AUTOATTACK_ON_PURIFIERS = [name for name in PAPERS if name.startswith("coup/slow/") and "full_" not in name]


@pytest.mark.parametrize(
    "name", [name for name in [*PAPERS, *MINIATURE] if name not in [*AUTOATTACK_ON_PURIFIERS, *UNTRAINED]]
)
def test_every_experiment_runs_in_miniature(name, tmp_path_factory):
    outputs = tmp_path_factory.getbasetemp() / "experiments"  # shared: trained classifiers are made once
    dataset = "scenes" if name.startswith(SCENES) else "digits"
    common = [
        f"experiment={name}",
        f"dataset={dataset}",
        "n=2",
        "chunk=2",
        "score_draws=2",
        "threads=1",
        f"outputs={outputs}",
    ]
    cfg = composed(common)
    shorten(cfg.attack, FEW)
    if cfg.finetune.images:
        cfg.finetune.n, cfg.finetune.epochs, cfg.finetune.batch = 40, 1, 20
    if cfg.train.images:
        cfg.train.n, cfg.train.epochs = 40, 1
    record = run_cell(cfg, cfg.hydra.runtime.choices, common)
    assert record.summary()["status"] == "complete"
    assert record.summary()["dataset_name"] == dataset
    assert name in {asker["experiment"] for asker in record.requests()}


def rows(file):
    return yaml.safe_load(file.read_text())["rows"]


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_every_row_of_a_table_is_an_experiment_that_exists_or_a_published_value(file):
    for row in rows(file):
        names = [row["experiment"]] if "experiment" in row else row.get("worst_per_image", row.get("lowest_of", []))
        assert set(names) <= set(EXPERIMENTS), row
        published = "published" in row or {"natural", "robust"} <= row.keys() or "precision" in row
        assert names or "section" in row or published, f"{row} is nothing"
        assert ("natural" in row) == ("robust" in row), f"{row} has half a published value"


def test_every_experiment_of_a_table_stands_in_a_table():
    tables = [yaml.safe_load(file.read_text()) for file in TABLES]
    sweeps = [e for table in tables for kind in SWEPT for e in table.get(kind, {}).get("experiments", [])]
    several = [e for table in tables for row in table["rows"] for kind in SEVERAL for e in row.get(kind, [])]
    used = {row.get("experiment") for file in TABLES for row in rows(file)} | set(sweeps) | set(several)
    rest = {name for name in [*PAPERS, *MINIATURE] if not name.startswith(KNOWN)} - used
    assert not rest, sorted(rest)


PUBLISHED = [("lgap/1", {"LGAP": (90.03, 71.68)}), ("lgap/2", {"LGAP": (58.71, 39.82)}),
    ("lgap/3", {"LGAP, BPDA-40": (90.30, 62.63), "LGAP, BPDA-40 + EOT": (90.30, 44.96)}),
    ("lgap/4", {"LGAP, AutoAttack, blind": (69.09, 57.12), "LGAP, BPDA-40": (69.09, 45.31), "LGAP, PGD-10, blind": (69.09, 52.73)}),
    ("coup/1", {"COUP, AutoAttack, the worse of standard and rand": (90.04, 73.05), "DiffPure, AutoAttack, the worse of standard and rand": (89.02, 70.64)}),
    ("coup/2", {"COUP, AutoAttack, the worse of standard and rand": (92.58, 83.13), "DiffPure, AutoAttack, the worse of standard and rand": (91.03, 78.58)}),
    ("coup/3", {"GDMP": (93.50, 76.22), "DiffPure": (89.02, 81.40), "COUP": (90.04, 83.20)}),
    ("coup/cifar100", {"Likelihood maximisation": (None, 38.67), "Likelihood maximisation with COUP's guidance": (None, 40.55)}),
    ("coup/figure2c", {"Wang et al., attacked in l2": (95.16, None), "COUP + Wang et al., attacked in linf": (None, 77.15)}),
    ("coup/salt_and_pepper", {"Undefended": (None, 87.80), "COUP without guidance": (None, 92.60), "COUP": (None, 93.00)})]  # fmt: skip


@pytest.mark.parametrize("table, published", PUBLISHED, ids=[table for table, _ in PUBLISHED])
def test_the_published_values_are_the_papers(table, published):
    found = {
        row["row"]: (row["natural"], row["robust"]) for row in rows(CONF / "table" / f"{table}.yaml") if "robust" in row
    }
    assert {name: found[name] for name in published} == published


def test_a_folder_of_experiments_sweeps_and_the_scale_follows_the_data_set(tmp_path):
    done = called("run", "-m", "+experiment/lgap/table1=glob(*)", "dataset=digits", "dry=true", f"outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dry check passed; missing here: nothing") == len(
        [n for n in EXPERIMENTS if n.startswith("lgap/table1/")]
    )
    paper = called("run", "experiment=lgap/table1/lgap", "dry=true", f"outputs={tmp_path}")
    assert "cifar10/standard" in paper.stdout
    assert "n = 10000" in paper.stdout
    refused = called("run", "experiment=lgap/table1/lgap", f"outputs={tmp_path}")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "lgap-bench fetch" in refused.stderr


def test_a_sweep_over_a_folder_that_does_not_exist_is_one_line(tmp_path):
    done = called("run", "-m", "+experiment/lgap/tabel1=glob(*)", f"outputs={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "tabel1" in done.stderr
    assert "nothing was measured" in done.stderr


@pytest.mark.parametrize(
    "overrides, named",
    [
        (
            ["dataset=cifar100", "classifier=digits/standard"],
            "classifier=digits/standard gives 10 logits .* 100 classes",
        ),
        (["attack._target_=lgap_bench.attack.pgd.PDG"], "attack._target_=.*PDG"),
        (["+attack.stepz=3"], "attack: .*stepz"),
        (["threat.eps=8"], "threat.eps=8 .*8/255"),
    ],
)
def test_a_dry_check_refuses_what_could_not_work(overrides, named):
    cell = resolved(overrides)
    with pytest.raises(ValueError, match=f"^{named}.*$"):
        dry(cell)
