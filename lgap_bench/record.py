"""What is kept of a cell: one folder named by the cell's identity. Every table and figure is made from records alone.

outputs/records/<id>/   config.yaml      the resolved config
                        identity.json    all that can change the numbers; <id> is its hash
                        chunks/*.npz     finished chunks, while the cell runs
                        samples.parquet  one row per sample
                        summary.json     the cell's numbers, and the SHA-256 of samples.parquet
                        run.json         when, how long, with which versions: nothing that identifies
                        pictures.npz     the first images, clean, attacked and purified; grid.png draws them
                        images.npz       all attacked images, where keep_images is set
                        asked/*.json     the experiments that asked for this cell: how a table finds its rows
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgap_bench.runtime import files

Chunk = dict[str, NDArray[Any]]
PICTURES = 8  # images of the first chunk that are kept for the grid


@dataclass(frozen=True)
class Record:
    """A cell's folder; whole once `summary.json` exists, which is written last."""

    folder: Path

    @property
    def complete(self) -> bool:
        """Whether the cell was finished."""
        return (self.folder / "summary.json").exists()

    def begin(self, config: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Create the folder and write what identifies the cell; what an earlier kill has left goes."""
        (self.folder / "chunks").mkdir(parents=True, exist_ok=True)
        files.tidy(self.folder)
        files.write_json(self.folder / "identity.json", identity)
        files.write_yaml(self.folder / "config.yaml", config)

    def chunk(self, index: int) -> Chunk | None:
        """A finished chunk, or None. Raises ValueError if its file is damaged."""
        file = self._chunk_file(index)
        if not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, KeyError) as error:
            raise ValueError(
                f"record chunk {file} is damaged ({error}): delete this file, it is computed again"
            ) from None

    def save_chunk(self, index: int, chunk: Chunk) -> None:
        """Write a chunk so that a kill leaves either the whole file or none."""
        files.write_npz(self._chunk_file(index), chunk)

    def finish(self, chunks: list[Chunk], summary: dict[str, Any], run: Mapping[str, Any]) -> None:
        """Merge the chunks into samples.parquet, write the pictures, then the summary that makes the record whole."""
        samples = self.folder / "samples.parquet"
        files.write_parquet(samples, _table(chunks))
        pictures = {
            key.removeprefix("picture_"): value for key, value in chunks[0].items() if key.startswith("picture_")
        }
        files.write_npz(self.folder / "pictures.npz", pictures, compressed=True)
        if all("image_attacked" in chunk for chunk in chunks):
            images = np.concatenate([chunk["image_attacked"] for chunk in chunks])
            files.write_npz(self.folder / "images.npz", {"attacked": images}, compressed=True)
        files.write_json(self.folder / "run.json", run)
        digest = hashlib.sha256(samples.read_bytes()).hexdigest()
        files.write_json(self.folder / "summary.json", {**summary, "samples_sha256": digest})
        self.tidy()

    def tidy(self) -> None:
        """Remove what a kill may leave beside a finished record: its chunks, and files that were being written."""
        if self.complete:
            shutil.rmtree(self.folder / "chunks", ignore_errors=True)
            files.tidy(self.folder)

    def abandon(self) -> None:
        """Remove a record of which no chunk was finished: an error before the first leaves no empty folder behind."""
        if self.complete or any((self.folder / "chunks").glob("*.npz")):
            return
        shutil.rmtree(self.folder / "chunks", ignore_errors=True)
        for name in ("identity.json", "config.yaml"):
            (self.folder / name).unlink(missing_ok=True)
        for folder in (self.folder, self.folder.parent):
            with suppress(
                OSError
            ):  # not empty: it holds others' records, or what a logger has written; or is not there
                folder.rmdir()

    def summary(self) -> dict[str, Any]:
        """The cell's numbers. Raises ValueError if the record is damaged: a wrong number is worse than none."""
        file = self.folder / "summary.json"
        try:
            summary = json.loads(file.read_text())
            digest = hashlib.sha256((self.folder / "samples.parquet").read_bytes()).hexdigest()
            if summary["samples_sha256"] != digest:
                raise ValueError("samples.parquet is not the one its summary was made from")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"record {self.folder} is damaged ({error}): delete this folder, the cell is computed again"
            ) from None
        return summary

    def check(self, images: bool = False) -> None:
        """Raise ValueError if a finished record cannot answer: damaged, or without the `images` that are asked for."""
        self.summary()
        if images and not (self.folder / "images.npz").exists():
            raise ValueError(
                f"keep_images=true, but record {self.folder} was made without them: delete this folder, the cell is "
                "computed again"
            )

    def samples(self) -> dict[str, list[Any]]:
        """The columns of samples.parquet."""
        import pyarrow.parquet as parquet

        return parquet.read_table(self.folder / "samples.parquet").to_pydict()

    def run(self) -> dict[str, Any]:
        """When and how long the cell ran."""
        return self._read("run.json")

    def identity(self) -> dict[str, Any]:
        """All that can change the cell's numbers."""
        return self._read("identity.json")

    def request(self, experiment: str, overrides: list[str]) -> None:
        """Note that an experiment, with these overrides, came to this cell."""
        content = {"experiment": experiment, "overrides": overrides}
        name = hashlib.sha256((json.dumps(content, indent=2, sort_keys=True) + "\n").encode()).hexdigest()[:16]
        file = self.folder / "asked" / f"{name}.json"
        if not file.exists():
            files.write_json(file, content)

    def requests(self) -> list[dict[str, Any]]:
        """Every experiment and its overrides that came to this cell."""
        return [json.loads(file.read_text()) for file in sorted((self.folder / "asked").glob("*.json"))]

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.folder / name).read_text())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"record {self.folder} is damaged ({name}: {error}): delete this folder, the cell is computed again"
            ) from None

    def classes(self) -> list[str]:
        """The class names of the record's data set (a record of 0.1 has them in its config alone)."""
        import yaml

        held = self.summary().get("classes")
        return held or yaml.safe_load((self.folder / "config.yaml").read_text())["dataset"]["classes"]

    def pictures(self) -> dict[str, NDArray[Any]]:
        """The first images: `clean`, `attacked`, `purified_clean`, `purified` (B, H, W, C) in [0, 1]."""
        with np.load(self.folder / "pictures.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    def _chunk_file(self, index: int) -> Path:
        return self.folder / "chunks" / f"{index:05d}.npz"


def records(outputs: Path) -> list[Record]:
    """All finished records below an outputs folder, in the order of their ids."""
    folders = sorted((outputs / "records").glob("*/summary.json"))
    return [Record(file.parent) for file in folders]


def _table(chunks: list[Chunk]) -> dict[str, list[Any]]:
    """Columns of all chunks; (K, B) arrays become one list of K per sample."""
    columns = {}
    for name in dict.fromkeys(name for chunk in chunks for name in chunk):
        if name.startswith(("picture_", "image_", "probe_")) or name == "seconds":
            continue
        columns[name] = [row for chunk in chunks for row in _rows(chunk, name)]
    return columns


def _rows(chunk: Chunk, name: str) -> list[Any]:
    """One value per sample; nothing where a chunk lacks the column (a library's own count, when all samples failed)."""
    if name not in chunk:
        return [None] * len(chunk["id"])
    return (chunk[name].T if chunk[name].ndim == 2 else chunk[name]).tolist()
