"""`lgap-bench pack`: equal records are equal bytes, a changed member is refused by its name, and none leaves its folder."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cells import SMALL, called, only_record, run

from lgap_bench.record import Record
from lgap_bench.verify.archive import opened, pack, unpacked

CELL = ["purifier=none", "attack=pgd", *SMALL]
Members = dict[str, tuple[tarfile.TarInfo, bytes]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Record:
    outputs = tmp_path_factory.mktemp("kept")
    return run([*CELL, "keep_images=true", "export=false", f"outputs={outputs}"])


@pytest.fixture(scope="module")
def archive(kept: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(kept, tmp_path_factory.mktemp("packed") / "record.tar.gz")


def rewritten(archive: Path, to: Path, change: Callable[[Members], None]) -> Path:
    """The archive with some members changed."""
    with tarfile.open(archive) as source:
        members = {each.name: (each, source.extractfile(each).read()) for each in source}
    change(members)
    with tarfile.open(to, "w:gz") as out:
        for info, content in members.values():
            info.size = len(content) if info.isreg() else 0
            out.addfile(info, io.BytesIO(content))
    return to


def refused(file: Path, folder: Path) -> str:
    """What is said of an archive; nothing of it may lie outside the folder it is unpacked into."""
    inside = folder / "inside"
    inside.mkdir()
    before = {path for path in folder.rglob("*") if inside not in path.parents}
    with pytest.raises(ValueError, match="archive") as caught:
        unpacked(file, inside)
    assert {path for path in folder.rglob("*") if inside not in path.parents} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_record_comes_back_byte_by_byte(kept, archive, tmp_path):
    with opened(archive) as found:
        ours = {path.relative_to(kept.folder): path.read_bytes() for path in kept.folder.rglob("*") if path.is_file()}
        theirs = {
            path.relative_to(found.folder): path.read_bytes() for path in found.folder.rglob("*") if path.is_file()
        }
        assert ours == theirs
        assert found.summary() == kept.summary()  # which looks at every seal
        place = found.folder
    assert not place.exists()


def test_a_copy_of_the_record_makes_the_same_bytes(kept, archive, tmp_path):
    copy = Record(Path(shutil.copytree(kept.folder, tmp_path / kept.folder.name, copy_function=shutil.copy)))
    assert pack(copy, tmp_path / "other.tar.gz").read_bytes() == archive.read_bytes()


def test_the_manifest_names_weights_and_versions(kept, archive):
    with tarfile.open(archive) as source:
        manifest = json.loads(source.extractfile("manifest.json").read())
    assert manifest["weights"] == {"classifier.weights": kept.identity()["classifier"]["weights"]}
    assert manifest["versions"]["torch"] == kept.run()["torch"]
    assert manifest["files"].keys() >= {"images.npz", "config.yaml", "samples.parquet"}


@pytest.mark.parametrize("name", ["images.npz", "config.yaml", "samples.parquet", "summary.json"])
def test_a_changed_member_is_named(kept, archive, tmp_path, name):
    def change(members: Members) -> None:
        info, content = members[f"{kept.folder.name}/{name}"]
        members[f"{kept.folder.name}/{name}"] = info, content[:-1] + bytes([content[-1] ^ 1])

    assert f"member {kept.folder.name}/{name} " in refused(rewritten(archive, tmp_path / "x.tar.gz", change), tmp_path)


def test_a_missing_member_is_named(kept, archive, tmp_path):
    file = rewritten(
        archive, tmp_path / "x.tar.gz", lambda members: members.pop(f"{kept.folder.name}/images.npz") and None
    )
    assert "images.npz is missing" in refused(file, tmp_path)


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "{id}/../../escaped", "{id}/a/../../../escaped", "other/x", "{id}\\..\\x", "{id}"])  # fmt: skip
def test_a_member_that_leads_elsewhere_is_refused_by_name_even_if_the_manifest_has_it(kept, archive, tmp_path, name):
    name = name.format(id=kept.folder.name)

    def change(members: Members) -> None:
        info, content = members["manifest.json"]
        manifest = json.loads(content)
        manifest["files"][name.removeprefix(f"{kept.folder.name}/")] = {"size": 1, "sha256": "0" * 64}
        members["manifest.json"] = info, json.dumps(manifest).encode()
        members["more"] = tarfile.TarInfo(name), b"x"

    said = refused(rewritten(archive, tmp_path / "x.tar.gz", change), tmp_path)
    assert f"member {name} is no plain file of the record" in said


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_devices_and_folders_are_refused(kept, archive, tmp_path, kind):
    name = f"{kept.folder.name}/images.npz"

    def change(members: Members) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/hostname"
        members[name] = info, b""

    assert f"member {name} is no plain file" in refused(rewritten(archive, tmp_path / "x.tar.gz", change), tmp_path)


def test_a_member_that_comes_twice_is_refused(kept, archive, tmp_path):
    name = f"{kept.folder.name}/images.npz"
    file = rewritten(archive, tmp_path / "x.tar.gz", lambda members: members.update(again=members[name]))
    assert "twice" in refused(file, tmp_path)


def test_an_archive_that_was_cut_off_is_one_line(archive, tmp_path):
    content = archive.read_bytes()
    for keep in (0, 5, 100, len(content) // 2, len(content) - 2000):
        (folder := tmp_path / str(keep)).mkdir()
        (folder / "x.tar.gz").write_bytes(content[:keep])
        assert "cut off" in refused(folder / "x.tar.gz", folder)


def test_what_would_fill_the_disk_is_refused_before_anything_is_written(archive, tmp_path):
    def change(members: Members) -> None:
        info, content = members["manifest.json"]
        manifest = json.loads(content)
        manifest["files"]["images.npz"]["size"] = 2**60
        members["manifest.json"] = info, json.dumps(manifest).encode()

    assert "GiB" in refused(rewritten(archive, tmp_path / "x.tar.gz", change), tmp_path)
    assert list((tmp_path / "inside").iterdir()) == []


@pytest.mark.parametrize("manifest", [b"{}", b"[]", b"no", b'{"format": 2, "record": "0123456789abcdef", "files": {}}', b'{"format": 1, "record": "../../../etc/abcd", "files": {}}'])  # fmt: skip
def test_a_manifest_of_another_kind_is_one_line(archive, tmp_path, manifest):
    def change(members: Members) -> None:
        members["manifest.json"] = members["manifest.json"][0], manifest

    refused(rewritten(archive, tmp_path / "x.tar.gz", change), tmp_path)


def test_any_other_file_is_no_archive(tmp_path):
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "gz").write_bytes(gzip.compress(b"no archive"))
    for name in ("text", "gz"):
        with pytest.raises(ValueError, match="cannot be read"), opened(tmp_path / name):
            pass


def test_a_record_without_images_is_not_packed_and_nothing_is_written(tmp_path):
    run([*CELL, f"outputs={tmp_path / 'out'}"])
    done = called("pack", str(only_record(tmp_path / "out")), str(tmp_path / "x.tar.gz"))
    assert done.returncode == 1
    assert "keep_images=true" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x.tar.gz").exists()


def test_a_damaged_record_and_a_bad_name_are_one_line(kept, tmp_path):
    copy = Path(shutil.copytree(kept.folder, tmp_path / kept.folder.name))
    done = [called("pack", str(copy), str(tmp_path / "x.zip")), called("pack", str(tmp_path / "none"))]
    (copy / "samples.parquet").write_bytes(b"")
    done.append(called("pack", str(copy), str(tmp_path / "x.tar.gz")))
    for each, said in zip(done, (".tar.gz", "does not exist", "damaged"), strict=True):
        assert each.returncode == 1
        assert said in each.stderr
        assert each.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {kept.folder.name}
