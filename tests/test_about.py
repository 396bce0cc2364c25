"""`_about_`: nothing a part is given gets lost on the way, and a word that means nothing is said when a config is composed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cells import identified

from lgap_bench.cell.compose import composed, resolved
from lgap_bench.cell.config import resolve
from lgap_bench.cell.instantiate import instantiate
from lgap_bench.cell.values import is_limit, satisfies

# Keys that once were taken for descriptions and never reached a constructor: a purifier of one's own may use any word.
OWN = """# Ours.
_target_: test_about.Own
width: 3
shape: box
memory: 0
limits: wide
needs: nothing
root: here
sizes: {small: 1}
_about_:
  limits:
    width: int [1, 31]
"""


class Own:
    def __init__(self, width, shape="circle", memory=9, limits=None, needs=None, root=None, sizes=None):
        self.given = (width, shape, memory, limits, needs, root, sizes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A config folder of one's own, with a purifier `own`."""
    (tmp_path / "purifier").mkdir()
    (tmp_path / "purifier" / "own.yaml").write_text(OWN)
    return tmp_path


def own(folder: Path, *overrides: str) -> list[str]:
    return [f"hydra.searchpath=[file://{folder}]", "purifier=own", "attack=pgd", *overrides]


def test_every_key_of_a_part_reaches_its_constructor_whatever_it_is_called(folder):
    part = instantiate(resolved(own(folder)).purifier)
    assert part.given == (3, "box", 0, "wide", "nothing", "here", {"small": 1})


@pytest.mark.parametrize("key", ["shape=a", "memory=9", "limits=narrow", "needs=all", "root=there", "sizes.small=2"])
def test_every_key_of_a_part_is_part_of_its_identity(folder, key):
    ids = {identified(own(folder, *more))["cell"] for more in ([], [f"purifier.{key}"])}
    assert len(ids) == 2, f"purifier.{key} answers from another record"


def test_a_key_that_its_part_calls_unidentified_is_left_out_of_the_identity_alone(folder):
    file = folder / "purifier" / "own.yaml"
    file.write_text(file.read_text() + "  unidentified: [root]\n")
    assert identified(own(folder)) == identified(own(folder, "purifier.root=there"))
    assert instantiate(resolved(own(folder, "purifier.root=there")).purifier).given[5] == "there"


@pytest.mark.parametrize(
    "written, told",
    [
        ("limits: {width: 'int [1,31]'}", r"_about_.limits.width=int \[1,31\] is no limit: write int \[1, 31\]"),
        ("limits: {width: 'int [9, 1]'}", "_about_.limits.width"),
        ("limits: {width: [1, 31]}", "_about_.limits.width"),
        ("limits: {widht: 'int [1, 31]'}", "_about_.limits.widht limits a key that the part does not have"),
        ("limit: {width: 'int [1, 31]'}", "_about_.limit is not known: use limits, needs, "),
        ("needs: {spcae: pixel}", "_about_.needs.spcae is not known: use space or guidance"),
        ("needs: {space: 'pixel, latent'}", "_about_.needs.space=pixel, latent is no limit"),
        ("needs: pixel", "_about_.needs=pixel is not a mapping"),
        ("unidentified: root", "_about_.unidentified=root is not a list"),
        ("unidentified: [rooot]", "_about_ names rooot, a key that the part does not have"),
        ("made_of: [members]", "_about_ names members, a key that the part does not have"),
        ("class_count: many", "_about_.class_count=many is not a number"),
        ("space: 3", "_about_.space=3 is not a word"),
    ],
)
def test_a_misspelt_description_is_one_line_that_names_the_file(folder, written, told):
    file = folder / "purifier" / "own.yaml"
    file.write_text(OWN.split("_about_:")[0] + f"_about_:\n  {written}\n")
    cfg = composed(own(folder))
    with pytest.raises(ValueError, match=told) as caught:
        resolve(cfg, cfg.hydra.runtime.choices)
    assert str(caught.value).startswith("conf/purifier/own.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_description_without_words_is_refused(folder):
    file = folder / "purifier" / "own.yaml"
    file.write_text(OWN.split("_about_:")[0] + "_about_: limits\n")
    cfg = composed(own(folder))
    with pytest.raises(ValueError, match=r"conf/purifier/own.yaml: _about_=limits is no mapping"):
        resolve(cfg, cfg.hydra.runtime.choices)


@pytest.mark.parametrize(
    "limit", ["int [1, inf)", "(0, 1]", "[-1, 1] or null", "a | b", "linf", "1.5 | 2", "a|b or null"]
)
def test_what_satisfies_reads_is_a_limit(limit):
    assert is_limit(limit)
    assert satisfies(None, limit) is limit.endswith("or null")


@pytest.mark.parametrize("limit", ["int [1,31]", "[1, 0]", "(a, b]", "a, b", "", "[1, 2", None, 3, "a || b"])
def test_what_satisfies_would_misread_is_none(limit):
    assert not is_limit(limit)
