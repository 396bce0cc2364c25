"""Files brought here from a network: with progress, resumed where they broke off, put in place whole and checked, or not at all."""

from __future__ import annotations

import fcntl
import fnmatch
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from lgap_bench.runtime import header, hub, sources, weights
from lgap_bench.runtime.sources import Source

DRIVE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
BLOCK = 1 << 20
NETWORK = ("httpx", "httpcore", "requests", "urllib3", "huggingface_hub")
PATIENCE = 30  # seconds that a server may be silent
# Of a repository that the manifest does not know: its models' files, without those of whole models beside them.
ANY = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")
UNUSED = ("safety_checker/*", "feature_extractor/*", "*/openvino*", "*flax*", "onnx/*", "*training_args.bin")


def from_url(source: Source, path: Path) -> None:
    """Download a source's one file to `path`. Raises ValueError in one line; what is there by then is gone on from later."""
    url = DRIVE.format(source.at) if source.kind == "gdrive" else source.at
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        _get(url, part, source.name)
    except urllib.error.HTTPError as error:
        raise ValueError(
            f"{source.name}: {url} answers {error.code} {error.reason}: try later, or get it by hand to {path}"
        ) from None
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ValueError(
            f"{source.name}: {url} broke off ({reason}): the same command goes on where it stopped"
        ) from None
    place(source, part, path)


def place(source: Source, part: Path, path: Path) -> None:
    """Check a file that was brought here and put it in place; what is not the file is deleted. Raises ValueError then."""
    problem = header.other(part) if part.stat().st_size else "an empty file"
    try:
        if problem:
            raise ValueError(f"{source.name}: what came is {problem}: try later, or get it by hand to {path}")
        published = (source.sha256,) if source.sha256 else ()
        sources.check_seen(source.name, {path.name: weights.sha256(part)}, published=published)
    except ValueError:
        part.unlink()
        raise
    os.replace(part, path)


def _get(url: str, part: Path, name: str) -> None:
    """The rest of a file behind what `part` has of it. Raises OSError if it ends before its length."""
    with part.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{name}: another process is fetching it to {part}: wait for that one") from None
        begun = part.stat().st_size
        request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
        try:
            answer = urllib.request.urlopen(request, timeout=PATIENCE)
        except urllib.error.HTTPError as error:
            if error.code == 416 and begun:  # nothing behind what is there: it is whole, as its checksum will say
                return
            raise
        with answer:
            if answer.status != 206:  # the server begins anew
                stream.truncate(0)
                begun = 0
            total = _copy(answer, stream, begun, name)
    if total is not None and part.stat().st_size != total:
        raise OSError(f"{part.stat().st_size} of {total} bytes")


def _copy(answer: Any, stream: IO[bytes], begun: int, name: str) -> int | None:
    """Write an answer out, block by block; how long the whole file is, if the server says so."""
    from tqdm import tqdm

    length = answer.headers.get("Content-Length")
    total = None if length is None else begun + int(length)
    with tqdm(total=total, initial=begun, unit="B", unit_scale=True, desc=name, mininterval=1) as bar:
        while block := answer.read(BLOCK):
            stream.write(block)
            bar.update(len(block))
    return total


def from_hub(source: Source, revision: str | None = None) -> Path:
    """Fetch a repository's wanted files into the hub's cache and check them; the folder of its snapshot.

    The hub's library shows progress and goes on with what broke off. Raises ValueError in one line.
    """
    from huggingface_hub import HfApi, errors, snapshot_download

    wanted = revision or sources.revision(source.name)
    try:
        info = HfApi().model_info(source.name, revision=wanted, files_metadata=True, timeout=PATIENCE)
        named = {each.rfilename: each for each in info.siblings or ()}
        files = chosen(list(named), source.files)
        if not files:
            raise ValueError(
                f"{source.name}: revision {wanted} has none of {', '.join(source.files or ANY)}: is it another kind of model?"
            )
        folder = Path(snapshot_download(source.name, revision=wanted, cache_dir=hub.cache(), allow_patterns=files))
    except errors.GatedRepoError:
        raise ValueError(
            f"{source.name}: its licence has to be accepted on its page first, then set HF_TOKEN and call again"
        ) from None
    except errors.RevisionNotFoundError:
        raise ValueError(
            f"{source.name}: the hub has no revision {wanted} of it: name a commit, branch or tag that it has"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ValueError(
            f"{source.name}: the hub has no such model, or it is private: mend the name, or set HF_TOKEN"
        ) from None
    except Exception as error:  # the library's own, of its network library, which its versions change
        if isinstance(error, ValueError) or not (
            isinstance(error, OSError) or type(error).__module__.startswith(NETWORK)
        ):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{source.name}: the hub could not be asked ({reason}): the same command goes on where it stopped"
        ) from None
    _check(source, folder, files, named, info.sha)
    return folder


def _check(source: Source, folder: Path, files: Sequence[str], named: dict[str, Any], commit: str | None) -> None:
    """Hold the tensors' files to the SHA-256 that the hub says, and to what was first seen of this commit."""
    digests = {}
    for file in files:
        stored = getattr(named[file], "lfs", None)
        if stored is None:
            continue  # small files are addressed by their content already
        digests[file] = weights.sha256((folder / file).resolve())
        if digests[file] != stored.sha256:
            (folder / file).resolve().unlink()
            raise ValueError(f"{source.name}: {file} has another SHA-256 than the hub says: it was deleted, call again")
    sources.check_seen(source.name, digests, commit)


def chosen(files: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Which of a repository's files are fetched: those of the patterns, each folder's tensors in one form alone.

    Whole safetensors go before half ones (`fp16`), both before `.bin`.
    """
    usual = [each for each in files if not any(fnmatch.fnmatch(each, unused) for unused in UNUSED)]
    whole_pipeline = "model_index.json" in files
    found = [each for each in usual if any(fnmatch.fnmatch(each, pattern) for pattern in patterns or ANY)]
    found = [
        each for each in found if not (whole_pipeline and not patterns and "/" not in each and _rank(each) is not None)
    ]
    kept = [each for each in found if _rank(each) is None]
    for place in sorted({os.path.dirname(each) for each in found}):
        tensors = {each: _rank(each) for each in found if os.path.dirname(each) == place and _rank(each) is not None}
        best = min((rank for rank in tensors.values() if rank is not None), default=None)
        kept += [each for each, rank in tensors.items() if rank == best]
    return sorted(kept)


def _rank(file: str) -> int | None:
    """0 for whole safetensors, 1 for other forms of them, 2 and 3 for .bin; None for what holds no tensors."""
    name = os.path.basename(file)
    if name.endswith((".index.json",)) or not name.endswith((".safetensors", ".bin")):
        return None
    other = any(f".{variant}" in name for variant in ("fp16", "bf16", "non_ema", "ema"))
    return (0 if name.endswith(".safetensors") else 2) + other


def named(repo: str) -> Source:
    """A repository of the hub as a source, whether or not the manifest knows it."""
    return sources.manifest().get(repo) or Source(repo, "hub", repo, False, 0, "see its page", "you")
