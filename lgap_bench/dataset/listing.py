"""Which image files a folder holds and what each is labelled: a folder per class, or a flat folder with a label file."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lgap_bench.dataset.images import SUFFIXES, class_folders, image_files
from lgap_bench.runtime.text import read_text

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path", "ImageId")
# `PredictionString` and `ImageId` are Kaggle's of ImageNet; `index` is a class's number.
LABEL_COLUMNS = ("label", "index", "class", "synset", "PredictionString")
BESIDE = ("labels.csv", "labels.txt")  # what a flat folder's label file is called, where it lies in the folder
SYNSET = re.compile(r"(n\d{8})(\s.*)?")  # WordNet's name of a class of ImageNet; Kaggle has boxes behind it


@dataclass(frozen=True)
class Listing:
    """Image files and their labels as they are written, classes in the order of their names, files in the order of theirs.

    Attributes:
        files: (N,) paths.
        words: (N,) a class's name or number.
        numbers: whether the words are numbers, which a label file may give; a folder's name is a name.
    """

    files: tuple[Path, ...]
    words: tuple[str, ...]
    numbers: bool = False


def listed(root: str, labels: str | None = None, key: str = "dataset.root") -> Listing:
    """The images below a folder, labelled by their folders' names or, where all lie in one folder, by `dataset.labels`.

    `key` is the folder's, for errors.

    Raises ValueError for a folder without images, with images both beside and in class folders, for a flat folder without
    labels, and for a label file that names files that are not there or leaves some out.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{key}={root} is no folder: give the folder that holds one folder per class")
    flat = image_files(folder, key)
    folders = [] if flat and labels else class_folders(folder, key)
    if flat and folders:
        raise ValueError(
            f"{key}={root} holds images ({flat[0].name}) beside class folders ({folders[0][0].name}): sort them into folders, or give dataset.labels=file"
        )
    if flat:
        return _flat(root, flat, labels or _beside(root, flat[0]))
    if not folders:
        raise ValueError(
            f"{key}={root} holds no image ({', '.join(SUFFIXES)}) and no class folder: unpack the images there"
        )
    if labels is not None:
        raise ValueError(
            f"dataset.labels={labels} with class folders in {key}={root}: they are the labels, use dataset.labels=null"
        )
    files = tuple(file for _, held in folders for file in held)
    return Listing(files, tuple(path.name for path, held in folders for _ in held))


def synsets(lines: Sequence[str], key: str) -> dict[str, str] | None:
    """`n01440764 tench, Tinca tinca`, one line per class -> synset: word, in that order; None for lines without synsets.

    The format of ImageNet's own list (`synset_words.txt`, Kaggle's `LOC_synset_mapping.txt`). Of several words the first
    is taken; a word that two classes share (crane) gets the synset beside it.
    """
    found = [match for line in lines if (match := SYNSET.fullmatch(line))]
    if not found:
        return None
    if len(found) != len(lines):
        strange = next(line for line in lines if not SYNSET.fullmatch(line))
        raise ValueError(f"{key}: {strange!r} has no synset, and others have: write n01440764 tench, or words alone")
    words = [(match[2] or match[1]).split(",")[0].strip() for match in found]
    return {
        match[1]: word if words.count(word) == 1 else f"{word} ({match[1]})"
        for match, word in zip(found, words, strict=True)
    }


def read_labels(file: str) -> dict[str, str]:
    """File name -> label, as a CSV with a header (`file,label`) or lines `name label` say. Raises ValueError for a file twice."""
    lines = [line for line in read_text(file, "dataset.labels").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"dataset.labels={file} is empty: write file,label and one line per image")
    pairs = _columns(file, lines) if "," in lines[0] else [line.split(None, 1) for line in lines]
    found: dict[str, str] = {}
    for number, pair in enumerate(pairs, 1 + ("," in lines[0])):
        if len(pair) != 2 or not all(part and part.strip() for part in pair):
            raise ValueError(
                f"dataset.labels={file}: line {number} is no file with a label: write name.jpg and its label"
            )
        name, label = pair[0].strip(), pair[1].strip()
        if name in found:
            raise ValueError(f"dataset.labels={file}: {name} stands there twice: keep one line")
        match = SYNSET.fullmatch(label)
        found[name] = match[1] if match else label
    return found


def _columns(file: str, lines: Sequence[str]) -> list[list[str]]:
    rows = csv.DictReader(lines)
    header = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = header
    name = next((each for each in FILE_COLUMNS if each in header), None)
    label = next((each for each in LABEL_COLUMNS if each in header), None)
    if name is None or label is None:
        raise ValueError(
            f"dataset.labels={file} has the columns {', '.join(header)}: call the files' column file and the labels' label"
        )
    return [[row[name] or "", row[label] or ""] for row in rows]


def _beside(root: str, image: Path) -> str:
    for name in BESIDE:
        if (image.parent / name).is_file():
            return str(image.parent / name)
    raise ValueError(
        f"dataset.root={root} holds images without class folders: sort them into one folder per class, or give dataset.labels=file, lines of file,label"
    )


def _flat(root: str, files: Sequence[Path], labels: str) -> Listing:
    """Labels are looked up by file name, or by the name without its suffix, which Kaggle's list leaves out."""
    given = read_labels(labels)
    known = {file.name for file in files} | {file.stem for file in files}
    strange = [name for name in given if name not in known]
    if strange:
        raise ValueError(
            f"dataset.labels={labels} names {strange[0]}, which is not in {root}, {len(strange)} such lines: unpack the images or remove the lines"
        )
    words = [given.get(file.name, given.get(file.stem)) for file in files]
    bare = [file.name for file, word in zip(files, words, strict=True) if word is None]
    if bare:
        raise ValueError(
            f"dataset.labels={labels} has no label of {bare[0]}, {len(bare)} such images: add their lines or remove the images"
        )
    held = [word for word in words if word is not None]
    return Listing(tuple(files), tuple(held), numbers=all(word.isdecimal() for word in held))


def numbered(listing: Listing, classes: Sequence[str] | None) -> tuple[list[int], tuple[str, ...]]:
    """Labels (N,) and the classes' names. Without `classes` the names that occur are numbered in their sorted order.

    Raises ValueError for a name that is none of `classes`, and for folders whose names sort as numbers otherwise than as
    text: whoever trained the classifier saw one of the two orders.
    """
    if listing.numbers:
        labels = [int(word) for word in listing.words]
        return labels, tuple(classes or (f"class {number}" for number in range(max(labels) + 1)))
    names = tuple(classes) if classes else tuple(sorted(set(listing.words)))
    if not classes and all(name.isdecimal() for name in names) and list(names) != sorted(names, key=int):
        raise ValueError(
            f"dataset.root: the class folders {names[0]}, {names[1]}, ... sort as numbers otherwise than as text: say which label each has, dataset.classes=['0','1',...] in the classifier's order"
        )
    place = {plain(name): number for number, name in enumerate(names)}
    strange = sorted({word for word in listing.words if plain(word) not in place})
    if strange:
        raise ValueError(
            f"dataset.root: the class {strange[0]} is none of dataset.classes ({', '.join(names[:3])}, ...), {len(strange)} such: name the classes as they are labelled, in the classifier's order"
        )
    return [place[plain(word)] for word in listing.words], names


def by_synset(listing: Listing, known: Mapping[str, str], key: str) -> list[int]:
    """Labels (N,) of images that are labelled by synset, by the synset's place among `known`."""
    place = {synset: number for number, synset in enumerate(known)}
    strange = sorted({word for word in listing.words if word not in place})
    if strange:
        raise ValueError(f"dataset.root: the class {strange[0]} is not in {key}, {len(strange)} such: add its line")
    return [place[word] for word in listing.words]


def require_same_order(classes: Sequence[str], found: Sequence[str], what: str) -> None:
    """Raise ValueError for the first class that a file calls otherwise: its labels would mean something else."""
    if len(classes) != len(found):
        raise ValueError(
            f"{what} names {len(found)} classes, and dataset.classes has {len(classes)}: give those of its labels"
        )
    for number, (own, other) in enumerate(zip(classes, found, strict=True)):
        if plain(own) != plain(other):
            raise ValueError(
                f"{what} calls class {number} {other!r}, and dataset.classes {own!r}: give the names in the order of its labels"
            )


def plain(name: str) -> str:
    """A name as folders write it: `aquarium_fish` is `aquarium fish`."""
    return name.replace("_", " ").strip().lower()
