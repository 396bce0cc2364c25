"""README and docs: short sentences where a reader begins, links and commands that exist, and a reference that is not stale."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_readme import written

from lgap_bench import CONF
from lgap_bench.cell.compose import resolved
from lgap_bench.sweep.tables import grids, items
from scripts import reference

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]
SCREEN = 30  # lines
LONGEST = 35  # words of a sentence
REFUSED = {"attack.stepz=1"}  # misspelt on purpose: how long a refusal takes
FENCED = re.compile(r"^```.*?^```\n?", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^(?:lgap-bench|make|python|scripts/)\S* ?.*")


def screen(page: str) -> str:
    """What a reader sees first; of the README, which is short, everything."""
    lines = (ROOT / page).read_text().splitlines()
    return "\n".join(lines if page == "README.md" else lines[:SCREEN])


def prose(text: str) -> str:
    """The text without code blocks, tables, headings and what is no part of the page as it is read."""
    read = re.sub(r"<!--.*?-->", "", FENCED.sub("", text), flags=re.DOTALL)
    kept = [line for line in read.splitlines() if not line.startswith(("    ", "|", "#", "!["))]
    return "\n".join(kept)


def sentences(text: str) -> Iterator[str]:
    """Every sentence of every paragraph and list item; a link counts as its words."""
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", prose(text))
    for block in re.split(r"\n\s*\n|\n(?=- |\d+\. )", plain):
        joined = " ".join(block.split())
        yield from re.split(r"(?<=[.!?])[)*\"]*\s+(?=[A-Z`*(\"'\d])", joined)


def code(page: str) -> list[str]:
    """The commands in a page's code blocks, without their comments; continued and abridged lines are left out."""
    text = (ROOT / page).read_text()
    indented = [line[4:] for line in FENCED.sub("", text).splitlines() if line.startswith("    ")]
    inline = re.findall(r"`((?:lgap-bench|make|python) [^`]+)`", FENCED.sub("", text).replace("\n", " "))
    found = [line.split(" #")[0].strip() for line in [*indented, *inline] if COMMAND.match(line)]
    return [line for line in found if "..." not in line and not line.endswith("\\")]


def of(page: str, command: str) -> list[list[str]]:
    """The words after a command, once for each time that a page names it."""
    return [shlex.split(line)[len(command.split()) :] for line in code(page) if re.match(rf"{command}(?:\s|$)", line)]


def combinations(words: list[str]) -> Iterator[list[str]]:
    """The cells of a sweep, as few as name every value once; a `glob(*)` is the first file of its folder."""
    values = []
    for word in words:
        key, _, value = word.partition("=")
        if value == "glob(*)":
            value = sorted((CONF / key.removeprefix("+")).glob("*.yaml"))[0].stem
        if counted := re.fullmatch(r"range\((\d+),(\d+)\)", value):
            value = ",".join(map(str, range(*map(int, counted.groups()))))
        listed = [value] if value.startswith("[") else value.split(",")
        values.append([f"{key}={each}" for each in listed])
    for i in range(max(map(len, values), default=1)):
        yield [each[i % len(each)] for each in values]


def test_the_readme_is_no_longer_than_a_newcomer_reads() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_on_a_first_screen_has_more_than_35_words(page: str) -> None:
    long = [sentence for sentence in sentences(screen(page)) if len(sentence.split()) > LONGEST]
    assert not long, "\n".join(f"{len(sentence.split())}: {sentence}" for sentence in long)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_begins_with_its_title_what_it_is_for_and_a_command(page: str) -> None:
    first, blank, paragraph = (ROOT / page).read_text().splitlines()[:3]
    assert first.startswith("# ")
    assert (blank, paragraph[:1] not in ("", "|", "-", "#", "!", "`", " ")) == ("", True), (
        "no paragraph below the title"
    )
    blocks = [line[4:] for line in screen(page).splitlines() if line.startswith("    ")]
    assert any(COMMAND.match(line) for line in blocks), f"no command in the first {SCREEN} lines"


def slug(heading: str) -> str:
    """The anchor of a heading, as hosts of Markdown make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(
        re.findall(r"(?<![\w/<>.{}-])((?:scripts|conf|lgap_bench|tests|docs)/[\w/.-]*\w\.(?:py|sh|md|ya?ml|png))", text)
    )
    assert not [name for name in named - set(written(page)) if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_and_modules_that_a_page_names_exist(page: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert not [words[0] for words in of(page, "make") if words[0] not in targets]
    assert not [words[0] for words in of(page, "python -m") if importlib.util.find_spec(words[0]) is None]


@pytest.mark.parametrize("page", PAGES)
def test_cells_that_a_page_names_compose(page: str) -> None:
    own = {f"{Path(name).parent.name}={Path(name).stem}" for name in written(page)}  # run by test_readme
    for words in of(page, "lgap-bench run"):
        words = [word for word in words if word not in ("-m", "--help")]
        if not (own | REFUSED | {"-sc"}) & set(words):
            for overrides in combinations(words):
                resolved(overrides)


@pytest.mark.parametrize("page", PAGES)
def test_tables_that_a_page_names_exist(page: str) -> None:
    asked = [
        word.partition("=")[2] for words in of(page, "lgap-bench report") for word in words if word.startswith("table=")
    ]
    assert not [name for name in asked if not (CONF / "table" / f"{name}.yaml").exists()]
    for words in of(page, "lgap-bench tables"):
        dataset = next((word for word in words if word.startswith("dataset=")), None)
        names = [word for word in words if "=" not in word]
        assert not names or grids(items(names), dataset is not None, "slow=true" in words)
        for overrides in combinations([word for word in words if "=" in word and not word.startswith("slow=")]):
            resolved(overrides)


def test_the_reference_is_what_conf_says() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run make reference"


def test_the_reference_names_every_part_of_every_group() -> None:
    text = reference.PAGE.read_text()
    groups = {
        ".".join(part.keys[0].name.split(".")[:1])
        for group in ("attack", "purifier")
        for part in reference.parts(group)[1:2]
    }
    assert groups == {"attack", "purifier"}
    missing = [file for file in CONF.rglob("*.yaml") if f"`{file.stem}`" not in text and f"/{file.stem}`" not in text]
    assert sorted(file.name for file in missing) == ["config.yaml", "sources.yaml"]


def test_the_reference_takes_default_limit_and_comment_from_the_file() -> None:
    (guided,) = [part for part in reference.parts("purifier/guidance") if part.name == "confidence"]
    (weight,) = [key for key in guided.keys if key.name == "purifier.guidance.weight"]
    assert (weight.default, weight.allowed) == ("1.0", "[0, inf)")
    assert weight.comment
    (attack,) = [part for part in reference.parts("attack") if part.name == "bpda"]
    assert {key.name: key.allowed for key in attack.keys}["attack.keep"] == "best | last", (
        "a limit of the preset it starts from"
    )
