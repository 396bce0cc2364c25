"""What is kept of a cell: one folder named by the cell's identity. Every table and figure is made from records alone.

outputs/records/<id>/   config.yaml      the resolved config
                        identity.json    all that can change the numbers; <id> is its hash
                        chunks/*.npz     finished chunks, while the cell runs, by one worker or several
                        chunks/*.journal what an unfinished chunk goes on from
                        samples.parquet  one row per sample
                        summary.json     the cell's numbers, and the SHA-256 of samples.parquet
                        lower.json       the lowest number that another attack found on the same defense and images
                        run.json         when, how long, with which versions: nothing that identifies
                        pictures.npz     the first images, clean, attacked and purified; grid.png draws them
                        images.npz       all attacked images and whose they are, where keep_images is set
                        asked/*.json     the experiments that asked for this cell: how a table finds its rows
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lgap_bench.runtime import files
from lgap_bench.runtime.columns import Chunk, table
from lgap_bench.task.single_label import SINGLE_LABEL

NAMED = ("n", "seed", "eps", "view", "attack_name", "dataset_name", "purifier_name")  # by every summary since 0.1
SEALED = {"samples": "samples.parquet", "identity": "identity.json"}  # by summary.json
CONFIG = "config.yaml"  # sealed by run.json: it holds paths and threads, and equal cells have equal summaries
PICTURES = 8  # images of the first chunk that are kept for the grid


class Damaged(ValueError):
    """A record that cannot answer."""


@dataclass(frozen=True)
class Record:
    """A cell's folder; whole once `summary.json` exists, which is written last."""

    folder: Path

    @property
    def complete(self) -> bool:
        """Whether the cell was finished."""
        return (self.folder / "summary.json").exists()

    def begin(self, config: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Create the folder and write what identifies the cell; what kills have left goes. Call it under the record's lease."""
        (self.folder / "chunks").mkdir(parents=True, exist_ok=True)
        files.tidy(self.folder)
        files.write_json(self.folder / "identity.json", identity)
        files.write_yaml(self.folder / CONFIG, config)

    def chunk(self, index: int, ids: Sequence[int]) -> Chunk | None:
        """The finished chunk of these samples, or None.

        Raises ValueError if its file is damaged, or is not what was saved here: a copy of another chunk, of another
        record, or a part of one would make a whole record of the wrong samples.
        """
        file = self._chunk_file(index)
        try:
            chunk = files.read_npz(file, "it is computed again")
        except ValueError:
            if not file.exists():  # not made yet; or another worker has made the record whole in the meantime
                return None
            raise
        stamp = str(chunk.pop("stamp", ""))
        held: list[int] = chunk.get("id", np.empty(0)).tolist()
        if stamp != self._stamp(index, chunk) or held != list(ids):
            raise ValueError(
                f"record chunk {file} is not what was saved here (stamp {stamp or 'none'}, {len(held)} samples): delete this file, it is computed again"
            )
        return chunk

    def save_chunk(self, index: int, chunk: Chunk) -> None:
        """Write a chunk so that a kill leaves either the whole file or none; it says whose it is. Its journal goes."""
        files.write_npz(self._chunk_file(index), {**chunk, "stamp": np.asarray(self._stamp(index, chunk))})
        shutil.rmtree(self.journal(index), ignore_errors=True)

    def journal(self, index: int) -> Path:
        """Where a chunk that is not finished keeps what it has computed; it goes when the chunk is saved."""
        return self._chunk_file(index).with_suffix(".journal")

    def missing(self, chunks: int, shards: int = 1, images: bool = False) -> dict[int, list[int]]:
        """Which of the cell's chunks are not finished, by shard; a whole record misses none.

        `images`: one that was made without its attacked images is not. Only names are read, so it is cheap, and on a
        network file system as old as its client's memory of the folder: see `refresh`.
        """
        left: dict[int, list[int]] = {}
        for index in [] if self.complete else range(chunks):
            file = self._chunk_file(index)
            if not file.exists() or (images and not files.has_array(file, "image_attacked")):
                left.setdefault(index % shards, []).append(index)
        return left

    def refresh(self) -> None:
        """Let a client of a network file system look at the record anew: what others have made may not show yet."""
        for folder in (self.folder, self.folder / "chunks"):
            with suppress(OSError):  # not there, or gone by now
                files.clock(folder)

    def _stamp(self, index: int, chunk: Chunk) -> str:
        """Whose chunk it is, the how manieth, and what is in it."""
        digest = hashlib.sha256()
        for name, array in sorted(chunk.items()):
            digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
        return f"{self.folder.name} {index} {digest.hexdigest()}"

    def finish(self, chunks: list[Chunk], summary: dict[str, Any], run: Mapping[str, Any]) -> None:
        """Merge the chunks into samples.parquet, write the pictures, then the summary that makes the record whole."""
        samples = self.folder / "samples.parquet"
        files.write_parquet(samples, table(chunks))
        pictures = {
            key.removeprefix("picture_"): value for key, value in chunks[0].items() if key.startswith("picture_")
        }
        files.write_npz(self.folder / "pictures.npz", pictures, compressed=True)
        if all("image_attacked" in chunk for chunk in chunks):
            images = np.concatenate([chunk["image_attacked"] for chunk in chunks])
            ids = np.concatenate([chunk["id"] for chunk in chunks]).astype(np.int64)
            files.write_npz(self.folder / "images.npz", {"attacked": images, "ids": ids}, compressed=True)
        files.write_json(self.folder / "run.json", {**run, "config_sha256": self._sha256(CONFIG)})
        seals = {f"{name}_sha256": self._sha256(file) for name, file in SEALED.items()}
        sealed = {**summary, **seals}
        files.write_json(self.folder / "summary.json", {**sealed, "summary_id": files.content_id(sealed)})
        self.tidy()

    @property
    def settled(self) -> bool:
        """Whether the cell was finished, and a kill left nothing behind: neither chunks nor half a file."""
        kept = self.complete and (self.folder / "grid.png").exists() and not (self.folder / "chunks").exists()
        return kept and not files.matching(self.folder, "*.part")

    def tidy(self) -> None:
        """Remove what a kill may leave beside a finished record, under its lease: its chunks, and files half written."""
        if self.complete:
            shutil.rmtree(self.folder / "chunks", ignore_errors=True)
            files.tidy(self.folder)

    def abandon(self) -> None:
        """Remove a record of which no chunk was finished or kept in part: an error before the first leaves no empty folder.

        Call it under the record's lease, while nobody works at a chunk of it.
        """
        if self.complete or files.matching(self.folder, "chunks/**/*.npz"):
            return
        shutil.rmtree(self.folder / "chunks", ignore_errors=True)
        for name in ("identity.json", "config.yaml"):
            (self.folder / name).unlink(missing_ok=True)
        for folder in (self.folder, self.folder.parent):
            with suppress(OSError):  # not empty: others' records, what a logger has written; or not there
                folder.rmdir()

    def summary(self) -> dict[str, Any]:
        """The cell's numbers. Raises ValueError if the record is damaged: a wrong number is worse than none."""
        summary = self._read("summary.json", NAMED)
        try:
            for name, sealed in SEALED.items():
                if name != "samples" and f"{name}_sha256" not in summary and "summary_id" not in summary:
                    continue  # a record of 0.1 seals its samples alone
                if summary[f"{name}_sha256"] != self._sha256(sealed):
                    raise ValueError(f"{sealed} is not the one its summary was made from")
            rest = {key: value for key, value in summary.items() if key != "summary_id"}
            if "identity_sha256" in summary and summary.get("summary_id") != files.content_id(rest):
                raise ValueError("summary.json was edited")
            if self.run().get("config_sha256", config := self._sha256(CONFIG)) != config:
                raise ValueError(f"{CONFIG} is not the one its numbers were made from")
            if files.content_id(self.identity()) != self.folder.name:
                raise ValueError(
                    "identity.json is not the one that the folder is named by: it was edited, copied or renamed"
                )
        except Damaged:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._damaged(files.one_line(error))
        return summary

    def _damaged(self, how: str) -> NoReturn:
        raise Damaged(f"record {self.folder} is damaged ({how}): delete this folder, the cell is computed again")

    def _sha256(self, name: str) -> str:
        return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()

    def check(self, images: bool = False) -> None:
        """Raise ValueError if a finished record cannot answer: damaged, or without the `images` that are asked for."""
        summary, samples = self.summary(), self.samples()
        ids = samples["id"]
        if len(ids) != summary["n"] or len(set(ids)) != len(ids):
            self._damaged(
                f"samples.parquet has {len(set(ids))} samples in {len(ids)} rows, n of summary.json is {summary['n']}"
            )
        kept = ~np.asarray(samples["failed"], bool)
        for title, name, rows in (("natural", "clean", np.ones_like(kept)), ("robust", "attacked", kept)):
            mean = 100 * SINGLE_LABEL.correct(samples, name)[rows].mean() if rows.any() else 0.0
            if title in summary and not np.isclose(summary[title]["mean"], mean, atol=1e-6):
                self._damaged(f"summary.json says {title} {summary[title]['mean']}, samples.parquet {mean:.1f}")
        if images and not (self.folder / "images.npz").exists():
            raise ValueError(
                f"keep_images=true, but record {self.folder} was made without them: delete this folder, the cell is "
                "computed again"
            )

    def samples(self) -> dict[str, list[Any]]:
        """The columns of samples.parquet."""
        import pyarrow.parquet as parquet

        # not `read_table`: it brings pandas, which takes longer to import than the file to read
        with parquet.ParquetFile(self.folder / "samples.parquet") as file:
            return file.read().to_pydict()

    def note_lower(self, attack: str, view: str, robust: float, name: str) -> None:
        """Keep that another record of this defense and its images is lower; of several the lowest."""
        held = self.lower()
        if held is None or robust < held["robust"]:
            content = {"attack": attack, "view": view, "robust": robust, "record": name}
            files.write_json(self.folder / "lower.json", content)

    def lower(self) -> dict[str, Any] | None:
        """The lowest number found elsewhere on this defense and its images, if it is below this record's own."""
        file = self.folder / "lower.json"
        return self._read("lower.json", {"attack", "view", "robust", "record"}, apart=True) if file.exists() else None

    def verdict(self) -> tuple[str, list[str]]:
        """`sound`, `upper bound` or `invalid`, with the reasons in words; records of 0.1 were not judged."""
        summary, lower = self.summary(), self.lower()
        value = summary.get("verdict", "not judged")
        reasons = [reason["text"] for reason in summary.get("reasons", ())]
        if lower is not None:
            found = f"{lower['attack']} (view {lower['view']}) found {lower['robust']:.1f} on the same images"
            reasons, value = [found, *reasons], "upper bound" if value in ("sound", "not judged") else value
        return value, reasons

    def run(self) -> dict[str, Any]:
        """When and how long the cell ran."""
        return self._read("run.json", {"seconds"})

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
        asked = sorted((self.folder / "asked").glob("*.json"))
        return [self._read(f"asked/{file.name}", {"experiment", "overrides"}, apart=True) for file in asked]

    def _read(self, name: str, keys: Collection[str] = (), apart: bool = False) -> dict[str, Any]:
        """A mapping with these keys; a file that stands `apart` can be missed, the others make the record whole."""
        try:
            content = json.loads((self.folder / name).read_text())
            if not isinstance(content, dict) or not content.keys() >= set(keys):
                raise ValueError(f"no mapping with {', '.join(sorted(keys))}" if keys else "no mapping")
        except (OSError, ValueError) as error:
            if apart:
                raise ValueError(
                    f"{self.folder / name} is damaged ({files.one_line(error)}): delete this file, the same call writes it anew"
                ) from None
            self._damaged(f"{name}: {files.one_line(error)}")
        return content

    def config(self) -> dict[str, Any]:
        """The resolved config that the cell was made from."""
        import yaml

        try:
            return yaml.safe_load((self.folder / CONFIG).read_text())
        except (OSError, yaml.YAMLError) as error:
            self._damaged(f"config.yaml: {files.one_line(error)}")

    def classes(self) -> list[str]:
        """The class names of the record's data set (a record of 0.1 has them in its config alone)."""
        return self.summary().get("classes") or self.config()["dataset"]["classes"]

    def pictures(self) -> dict[str, NDArray[Any]]:
        """The first images: `clean`, `attacked`, `purified_clean`, `purified` (B, H, W, C) in [0, 1]."""
        return files.read_npz(self.folder / "pictures.npz", "and its folder, the cell is computed again")

    def _chunk_file(self, index: int) -> Path:
        return self.folder / "chunks" / f"{index:05d}.npz"


def records(outputs: Path) -> list[Record]:
    """All finished records below an outputs folder, in the order of their ids."""
    folders = sorted((outputs / "records").glob("*/summary.json"))
    return [Record(file.parent) for file in folders]
