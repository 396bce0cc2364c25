"""`lgap-bench pack`: a record as one archive, and back: every file by its SHA-256, nothing that leads outside its folder.

<id>.tar.gz   manifest.json    which record, made with which versions and weights, and size and SHA-256 of every file
              <id>/...         the record's own files

Whoever can write the archive can write its manifest too: it tells accidents and careless edits, not who made it. What
cannot be forged is that the images score as recorded: see `command`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from lgap_bench.record import Record
from lgap_bench.runtime import files
from lgap_bench.runtime import weights as weight_files

PACK = """lgap-bench pack <record folder> [file.tar.gz]

Writes one archive of a record that was measured with keep_images=true; `lgap-bench verify` takes it elsewhere. docs/verify.md
"""
FORMAT = 1
MANIFEST, SUFFIX = "manifest.json", ".tar.gz"
LARGEST_MANIFEST = 2**22  # bytes; one line per file of a record is far less
WEIGHTS = ("weights", "file", "clip")  # keys of an identity that hold the SHA-256 of files
VERSIONS = ("lgap-bench", "python", "torch", "diffusers", "transformers", "pyautoattack", "torchattacks", "torchsde")
UNREADABLE = (OSError, EOFError, tarfile.TarError, zlib.error)


def main() -> None:
    """Pack the record that the command line names and say where."""
    words = sys.argv[1:]
    if not words or words[0] in ("--help", "-h"):
        print(PACK, end="")
        return
    if len(words) > 2:
        raise ValueError(f"{words[2]} is one word too many: lgap-bench pack <record folder> [file.tar.gz]")
    folder = Path(words[0])
    if folder.is_file():
        raise ValueError(f"{folder} is a file: give the record's folder, <outputs>/records/<id>")
    with opened(folder) as record:
        file = pack(record, Path(words[1]) if len(words) > 1 else Path(f"{record.folder.name}{SUFFIX}"))
    print(f"{file}   {file.stat().st_size / 2**20:.1f} MiB   sha256 {weight_files.sha256(file)}")


def pack(record: Record, file: Path) -> Path:
    """Write the archive of a finished record that kept its images; equal records make equal bytes.

    Raises ValueError for a record that is damaged or has no images, and for a file name that is no archive's.
    """
    if not file.name.endswith(SUFFIX):
        raise ValueError(f"{file} is no name of an archive: let it end in {SUFFIX}")
    require_images(record)
    held = {path.relative_to(record.folder).as_posix(): path for path in _kept(record.folder)}
    manifest = json.dumps(_manifest(record, held), indent=2, sort_keys=True).encode() + b"\n"

    def save(stream: IO[bytes]) -> None:
        # No name and no time in the header: the same record makes the same bytes.
        with (
            gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            _add(archive, MANIFEST, len(manifest), io.BytesIO(manifest))
            for name, path in sorted(held.items()):
                with path.open("rb") as content:
                    _add(archive, f"{record.folder.name}/{name}", path.stat().st_size, content)

    try:
        files.write(file, save)
    except OSError as error:
        if error.errno in files.FULL:
            raise
        raise ValueError(f"{file} cannot be written ({error.strerror}): name an archive in another folder") from None
    return file


@contextmanager
def opened(where: Path) -> Iterator[Record]:
    """The record of a folder, or of an archive unpacked into a folder that goes again.

    Raises ValueError for what is neither, and for an archive that is cut off, that was changed (naming the member) or whose
    members do not belong below its record's folder.
    """
    if where.is_dir():
        record = Record(where.resolve())
        if not record.complete:
            raise ValueError(f"{where} holds no finished record: give a folder of <outputs>/records, or an archive")
        yield record
        return
    if not where.is_file():
        raise ValueError(f"{where} does not exist: give a record's folder, or an archive that `lgap-bench pack` made")
    with tempfile.TemporaryDirectory(prefix="lgap-bench-") as folder:
        yield unpacked(where, Path(folder))


def unpacked(file: Path, folder: Path) -> Record:
    """Write an archive's record below a folder, each member checked as it comes."""
    try:
        with tarfile.open(file, "r|gz") as archive:
            manifest = _read_manifest(archive, file)
            _require_room(manifest, folder, file)
            _unpack(archive, manifest, folder, file)
    except UNREADABLE as error:
        _refuse(file, f"cannot be read ({files.one_line(error)}): it is cut off or no archive, copy it again")
    return Record(folder / manifest["record"])


def require_images(record: Record) -> None:
    """Raise ValueError for a record that is damaged, or that did not keep its attacked images."""
    record.check()
    if not (record.folder / "images.npz").is_file():
        raise ValueError(
            f"record {record.folder.name} kept no attacked images: delete its folder and measure it again with keep_images=true"
        )


def weights_of(identity: Mapping[str, Any]) -> dict[str, str]:
    """Key -> SHA-256 of every model file that identifies a record."""
    found: dict[str, str] = {}

    def look(node: Any, path: str) -> None:
        for key, child in node.items() if isinstance(node, Mapping) else ():
            if key in WEIGHTS and isinstance(child, str):
                found[f"{path}{key}"] = child
            look(child, f"{path}{key}.")

    look(identity, "")
    return found


def _kept(folder: Path) -> list[Path]:
    """The files that make a record; not what work has left behind, and no link."""
    own = [path for path in folder.iterdir() if path.name != "chunks"]
    found = [path for path in own if path.is_file()] + files.matching(folder, "asked/*.json")
    return [path for path in found if not path.is_symlink() and path.suffix != ".part" and path.name[0] != "."]


def _manifest(record: Record, held: Mapping[str, Path]) -> dict[str, Any]:
    run, identity = record.run(), record.identity()
    members = {name: {"sha256": weight_files.sha256(path), "size": path.stat().st_size} for name, path in held.items()}
    return {
        "format": FORMAT,
        "record": record.folder.name,
        "numerics_version": identity.get("numerics_version"),
        "versions": {name: run[name] for name in VERSIONS if run.get(name) is not None},
        "weights": weights_of(identity),
        "trained": {name: each.get("sha256") for name, each in record.summary().get("stages", {}).items()},
        "files": members,
    }


def _add(archive: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)  # nobody's, of the year 1970
    member.size, member.mode = size, 0o644
    archive.addfile(member, content)


def _read_manifest(archive: tarfile.TarFile, file: Path) -> dict[str, Any]:
    first = archive.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > LARGEST_MANIFEST:
        _refuse(file, f"does not begin with a {MANIFEST}: give an archive that `lgap-bench pack` made")
    stream = archive.extractfile(first)
    assert stream is not None  # a regular file has content
    try:
        manifest = json.loads(stream.read())
        sound = (
            re.fullmatch(r"[0-9a-f]{16}", manifest["record"]) is not None
            and isinstance(manifest["format"], int)
            and all(each["size"] >= 0 and len(each["sha256"]) == 64 for each in manifest["files"].values())
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        _refuse(file, f"its {MANIFEST} is not as `lgap-bench pack` writes it: copy it again")
    if manifest["format"] != FORMAT:
        _refuse(
            file, f"is of format {manifest['format']}, this release reads {FORMAT}: install the release that made it"
        )
    return dict(manifest)


def _require_room(manifest: Mapping[str, Any], folder: Path, file: Path) -> None:
    """A few kilobytes can claim to hold terabytes."""
    size, free = sum(each["size"] for each in manifest["files"].values()), shutil.disk_usage(folder).free
    if size > free:
        _refuse(file, f"would unpack to {size / 2**30:.1f} GiB, {folder.parent} has {free / 2**30:.1f}: set TMPDIR")


def _unpack(archive: tarfile.TarFile, manifest: Mapping[str, Any], folder: Path, file: Path) -> None:
    missing: dict[str, Any] = {f"{manifest['record']}/{name}": each for name, each in manifest["files"].items()}
    while (member := archive.next()) is not None:  # iterating would begin with the manifest once more
        if not _inside(member, manifest["record"]):
            _refuse(file, f"its member {member.name} is no plain file of the record: do not trust it, ask for another")
        expected = missing.pop(member.name, None)
        if expected is None:
            _refuse(file, f"its member {member.name} is not in its manifest, or twice: it was changed, copy it again")
        stream = archive.extractfile(member)
        if (
            member.size != expected["size"]
            or stream is None
            or _copied(stream, folder / member.name) != expected["sha256"]
        ):
            _refuse(file, f"its member {member.name} is not the one in its manifest: it was changed, copy it again")
    if missing:
        _refuse(file, f"its member {min(missing)} is missing: it is cut off or was changed, copy it again")


def _inside(member: tarfile.TarInfo, record: str) -> bool:
    """A plain file (no link, no device) whose name leads below the record's folder and nowhere else."""
    parts = PurePosixPath(member.name).parts
    plain = member.isreg() and not member.issparse() and "\\" not in member.name and "\0" not in member.name
    return plain and len(parts) > 1 and parts[0] == record and ".." not in parts and "/".join(parts) == member.name


def _copied(stream: IO[bytes], to: Path) -> str:
    """Write a file and return its SHA-256."""
    digest = hashlib.sha256()
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("xb") as out:
        while block := stream.read(2**20):
            digest.update(block)
            out.write(block)
    return digest.hexdigest()


def _refuse(file: Path, why: str) -> NoReturn:
    raise ValueError(f"archive {file}: {why}")
