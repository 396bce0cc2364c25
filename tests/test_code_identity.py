"""A record answers only for the code that made it: a user's own modules, edited released ones, and data by content."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cells import SMALL, identified, run
from PIL import Image

from lgap_bench.evaluation.lower import compare
from lgap_bench.logger.base import Logger, Loggers
from lgap_bench.record import Record
from lgap_bench.runtime import code, weights

ROOT = Path(__file__).parent.parent
OWN = '''"""Mine."""
from lgap_bench.purifier.base import Purifier
from {helper} import strength


class Own(Purifier):
    """Darkens."""

    def forward(self, x, noise, observed=None):
        """x in [0, 1]."""
        return x * strength()  # a little
'''
HELPER = "def strength():\n    return 0.9\n"


class Module:
    """A purifier in a module of one's own, with a helper and a stranger beside it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.helper, self.stranger = (f"{name}_{part}" for part in ("own", "helper", "stranger"))
        self.folder = folder
        self.file, self.beside = folder / f"{self.name}.py", folder / f"{self.helper}.py"
        self.file.write_text(OWN.format(helper=self.helper))
        self.beside.write_text(HELPER)
        (folder / f"{self.stranger}.py").write_text("def other():\n    return 1\n")
        (folder / "conf" / "purifier").mkdir(parents=True)
        (folder / "conf" / "purifier" / "mine.yaml").write_text(f"# Mine.\n_target_: {self.name}.Own\n")

    @property
    def overrides(self) -> list[str]:
        return [f"hydra.searchpath=[file://{self.folder / 'conf'}]", "purifier=mine", "attack=pgd", "view=full", *SMALL]

    @property
    def id(self) -> str:
        return identified(self.overrides)["cell"]

    def edit(self, file: Path, old: str, new: str) -> None:
        """Another text; Python forgets the one that it has loaded."""
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        for name in (self.name, self.helper):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        for cached in file.parent.glob("__pycache__/*"):  # an edit within the same second would be missed
            cached.unlink()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Module:
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    # A name per test: where a module lies is looked up once per process.
    return Module(tmp_path, f"m{abs(hash(request.node.name)) % 10**8}")


# One's own modules


@pytest.mark.parametrize(
    "old, new",
    [
        ('"""Darkens."""', '"""Makes it darker."""'),
        ('"""Mine."""\n', ""),
        ("  # a little", ""),
        ("\n\n\nclass", "\n# here\n\nclass"),
        ("x * strength()", "(x  *\n            strength())"),
    ],
    ids=["docstring", "no docstring", "comment", "blank lines", "layout"],
)
def test_words_and_layout_do_not_change_the_id(own: Module, old: str, new: str) -> None:
    before = own.id
    own.edit(own.file, old, new)
    assert own.id == before


@pytest.mark.parametrize(
    "old, new", [("x * strength()", "x * strength() * 1"), ("class Own", "LEFT = 1\n\n\nclass Own")]
)
def test_code_changes_the_id(own: Module, old: str, new: str) -> None:
    before = own.id
    own.edit(own.file, old, new)
    assert own.id != before


def test_what_a_module_imports_from_beside_it_counts_and_a_stranger_does_not(own: Module) -> None:
    before = own.id
    assert code.changed([f"{own.name}.Own"]).keys() == {own.name, own.helper}
    own.edit(own.folder / f"{own.stranger}.py", "return 1", "return 2")
    assert own.id == before
    own.edit(own.beside, "0.9", "0.8")
    assert own.id != before


def test_a_package_counts_with_its_relative_imports_and_its_init(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "packed_parts"
    (package / "inner").mkdir(parents=True)
    texts = {
        "__init__.py": "", "inner/__init__.py": "", "inner/part.py": "from . import near\nfrom ..far import value\nimport numpy\n",
        "inner/near.py": "def late():\n    import packed_parts.late\n", "far.py": "value = 1\n", "late.py": "", "unused.py": "",
    }  # fmt: skip
    for name, text in texts.items():
        (package / name).write_text(text)
    importlib.invalidate_caches()
    found = code.changed(["packed_parts.inner.part.Part"])
    assert set(found) == {
        f"packed_parts{rest}" for rest in ("", ".inner", ".inner.part", ".inner.near", ".far", ".late")
    }
    (package / "__init__.py").write_text("import numpy\n")
    assert code.changed(["packed_parts.inner.part.Part"]) != found


@pytest.mark.parametrize(
    "content", [b"def forward(:\n", b"x = 1\0\n", b"\xff\xfe = 1\n"], ids=["syntax", "null", "bytes"]
)
def test_a_file_that_is_no_python_is_one_line(own: Module, content: bytes) -> None:
    own.beside.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{own.helper}.py is no Python \(.*\): mend the file") as caught:
        run([*own.overrides, f"outputs={own.folder / 'out'}"])
    assert "\n" not in str(caught.value)
    assert not (own.folder / "out").exists()


class Listener(Logger):
    def __init__(self) -> None:
        self.said: list[str] = []

    def phase(self, text: str) -> None:
        self.said.append(text)


def measured(own: Module, *more: str) -> tuple[Record, list[str]]:
    """A call, and what it says of the code; empty too where it answers from a record."""
    ear = Listener()
    record = run([*own.overrides, f"outputs={own.folder / 'out'}", *more], Loggers([ear]))
    return record, [text for text in ear.said if "code" in text]


def test_edited_code_is_measured_anew_and_says_so_and_the_old_code_answers_from_its_record(own: Module) -> None:
    first, said = measured(own)
    assert said == []
    own.edit(own.file, "x * strength()", "x * 0 + 0.5")
    second, said = measured(own)
    (line,) = said
    assert line.endswith(f"its code has changed since record {first.folder.name}, measured anew")
    naturals = [record.summary()["natural"]["mean"] for record in (first, second)]
    assert naturals[0] > 80 > naturals[1], "grey images are not told apart"
    assert second.folder != first.folder
    assert measured(own) == (second, []), "a recorded cell says nothing"
    own.edit(own.file, "x * 0 + 0.5", "x * strength()")
    assert measured(own) == (first, [])


def test_another_cell_is_not_an_edit(own: Module) -> None:
    measured(own)
    assert measured(own, "seed=1")[1] == []


def test_a_number_of_other_code_is_no_bound_for_this_one(own: Module) -> None:
    first, _ = measured(own)
    own.edit(own.file, "x * strength()", "x * 0 + 0.5")
    second, _ = measured(own)
    compare(first, own.folder / "out")
    rates = [record.summary()["robust"]["mean"] for record in (first, second)]
    assert rates[0] != rates[1], "else this shows nothing"
    assert first.lower() is second.lower() is None


# This release's modules

EDITED = """
import json, sys
from pathlib import Path
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.identity import identity
CELLS = {
    "lgap": ["purifier=lgap", "attack=bpda"],
    "mine": ["hydra.searchpath=[file://conf_own]", "purifier=mine", "attack=pgd"],
    "none": ["purifier=none", "attack=pgd"],
    "square": ["purifier=none", "attack=square"],
}
def code():
    return {name: sorted(identity(resolved(words), "cpu").get("code", {})) for name, words in CELLS.items()}
found = {"": code()}
for file, old, new in json.loads(sys.argv[1]):
    path = Path(file)
    text = path.read_text()
    assert old in text, file
    path.unlink()  # a link to the real one, which stays as it is
    path.write_text(text.replace(old, new, 1))
    try:
        found[f"{file} {new}"] = code()
    except ValueError as error:
        found[f"{file} {new}"] = str(error)
    path.write_text(text)
assert "torch" not in sys.modules
print(json.dumps(found))
"""
EDITS = [
    ("lgap_bench/purifier/lgap.py", '"""', '"""More words: '),
    ("lgap_bench/purifier/lgap.py", "import torch\n", "import torch\n\nleft = 1\n"),
    ("lgap_bench/purifier/base.py", "from typing import Any\n", "from typing import Any\n\nleft = 1\n"),
    ("lgap_bench/attack/pgd.py", "import torch\n", "import torch\n\nleft = 1\n"),
    ("lgap_bench/evaluation/score.py", "import torch\n", "import torch\n\nleft = 1\n"),
    ("lgap_bench/report/page.py", "from enum import Enum\n", "from enum import Enum\n\nleft = 1\n"),
    ("lgap_bench/runtime/code.py", "import ast\n", "import ast as ast\n"),
    ("lgap_bench/purifier/lgap.py", "import torch\n", "import torch(\n"),
]


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """Edit -> cell -> the modules that its identity names, in a copy of the package."""
    folder = tmp_path_factory.mktemp("checkout")
    for part in ("lgap_bench", "conf"):
        subprocess.run(["cp", "-rs", ROOT / part, folder / part], check=True)
    (folder / "conf_own" / "purifier").mkdir(parents=True)
    (folder / "conf_own" / "purifier" / "mine.yaml").write_text("# Mine.\n_target_: my_own_part.Mine\n")
    own = "from lgap_bench.purifier.lgap import LGAP\n\n\nclass Mine(LGAP):\n    pass\n"
    (folder / "my_own_part.py").write_text(own)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", EDITED, json.dumps(EDITS)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def named(edited: dict[str, dict[str, list[str]]], place: int) -> dict[str, list[str]]:
    """Cells whose identity names more than before the edit, and what."""
    file, _, new = EDITS[place]
    before, after = edited[""], edited[f"{file} {new}"]
    return {name: more for name, held in after.items() if (more := sorted(set(held) - set(before[name])))}


def test_released_code_adds_nothing_and_ones_own_adds_itself(edited):
    assert edited[""] == {"lgap": [], "mine": ["my_own_part"], "none": [], "square": []}


def test_words_in_a_released_module_add_nothing(edited):
    assert named(edited, 0) == {}


def test_an_edited_purifier_is_named_by_the_cells_that_use_it_or_inherit_from_it_and_by_no_others(edited):
    lgap = "lgap_bench.purifier.lgap"
    assert named(edited, 1) == {"lgap": [lgap], "mine": [lgap]}


def test_what_every_cell_stands_on_is_named_by_all(edited):
    assert named(edited, 2) == {cell: ["lgap_bench.purifier.base"] for cell in edited[""]}
    assert named(edited, 4) == {cell: ["lgap_bench.evaluation.score"] for cell in edited[""]}


def test_an_edited_attack_is_named_by_its_cells(edited):
    found = named(edited, 3)
    assert {"none", "mine", "lgap"} <= found.keys()
    assert set(map(tuple, found.values())) == {("lgap_bench.attack.pgd",)}


def test_pages_that_show_numbers_are_no_part_of_them(edited):
    assert named(edited, 5) == {}


def test_a_released_module_that_is_broken_is_one_line(edited):
    file, _, new = EDITS[7]
    said = edited[f"{file} {new}"]
    assert isinstance(said, str)
    assert "lgap.py is no Python" in said
    assert "\n" not in said


def test_the_manifest_is_that_of_the_code():
    done = subprocess.run(
        [sys.executable, "-m", "scripts.release", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# Data and numbers


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two class folders of one image each, and a cache of their own."""
    monkeypatch.setenv("LGAP_BENCH_CACHE", str(tmp_path / "cache"))
    for place, name in enumerate(("n01", "n02")):
        (tmp_path / "val" / name).mkdir(parents=True)
        picture(tmp_path / "val" / name / "a.png", 10 * place)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    return tmp_path / "val"


def picture(file: Path, value: int) -> None:
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file)


def of(pictures: Path) -> str:
    words = ["dataset=imagenet", f"dataset.root={pictures}", f"dataset.file={pictures.parent / 'classes.txt'}"]
    return identified([*words, "purifier=none", "attack=pgd", "classifier=digits/standard"])["cell"]


def later(file: Path) -> None:
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


@pytest.mark.parametrize(
    "change, counts",
    [
        (lambda root: picture(root / "n02" / "a.png", 200), True),
        (lambda root: picture(root / "n02" / "b.png", 200), True),
        (lambda root: (root / "n02" / "a.png").rename(root / "n02" / "c.png"), True),
        (lambda root: (root / "n01" / "a.png").unlink(), True),
        (lambda root: later(root / "n02" / "a.png"), False),
        (lambda root: (root / "n02" / ".DS_Store").write_bytes(b"x"), False),
    ],
    ids=["content", "one more", "name", "one less", "time alone", "hidden"],
)
def test_a_folder_of_images_identifies_by_what_is_in_it(
    pictures: Path, change: Callable[[Path], object], counts
) -> None:
    before = of(pictures)
    change(pictures)
    for file in pictures.rglob("*.png"):
        if counts:
            later(file)  # whatever the clock's grain, this is a later write
    assert (of(pictures) != before) is counts


def test_where_images_lie_does_not_count(pictures: Path) -> None:
    before = of(pictures)
    moved = pictures.parent / "elsewhere" / "val"
    moved.parent.mkdir()
    pictures.rename(moved)
    (pictures.parent / "classes.txt").rename(moved.parent / "classes.txt")
    assert of(moved) == before


def test_unchanged_images_are_not_read_again(pictures: Path) -> None:
    before = weights.folder_sha256(pictures)
    (cache,) = (pictures.parent / "cache" / "folders").glob("*.json")
    held = json.loads(cache.read_text())
    assert set(held) == {"n01/a.png", "n02/a.png"}
    cache.write_text(json.dumps({name: [size, time, "0" * 64] for name, (size, time, _) in held.items()}))
    told = weights.folder_sha256(pictures)
    assert told != before, "the digests of the last look are taken"
    later(pictures / "n01" / "a.png")
    later(pictures / "n02" / "a.png")
    assert weights.folder_sha256(pictures) == before, "a later write is looked at"
    cache.write_text("{")
    assert weights.folder_sha256(pictures) == before, "a damaged cache costs time alone"


LIKE = [
    ["threat.eps=48/255"],
    ["threat.eps=0.18823529411764706"],
    ["threat.eps='48 / 255'"],
    ["threat.eps=48/255", "attack.step_size=eps/4"],
    ["threat.eps=48/255", "attack.step_size=12/255"],
    ["purifier.guidance_scale=1"],
    ["purifier.guidance_scale=1.0"],
    ["purifier.guidance_scale=1e0"],
]
UNLIKE = [
    ["threat.eps=48.0001/255"],
    ["threat.eps=0.188"],
    ["attack.step_size=12.01/255"],
    ["attack.step_size=eps/5"],
    ["purifier.guidance_scale=2"],
]


def test_equal_numbers_are_one_id_however_they_are_spelled():
    ids = {" ".join(words): identified(["attack=bpda", "attack.step_size=eps/4", *words])["cell"] for words in LIKE}
    assert len(set(ids.values())) == 1, ids


def test_other_numbers_are_other_ids():
    base = ["attack=bpda", "attack.step_size=eps/4"]
    ids = [identified([*base, *words])["cell"] for words in ([], *UNLIKE)]
    assert len(set(ids)) == len(ids)
