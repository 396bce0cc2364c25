"""Where weights lie, whether they are whole, and what identifies them. Without torch, so that errors come at once."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from lgap_bench.runtime.digest import folder_sha256 as folder_sha256
from lgap_bench.runtime.digest import sha256 as sha256

EMBEDDED = "embedded:"
ZOO = Path(__file__).parents[1] / "zoo"
MANIFEST = ZOO / "SHA256SUMS"


# What a latent diffusion model consists of, in Stable Diffusion's folder layout.
LATENT_PARTS = {
    "vae": "*.safetensors",
    "unet": "*.safetensors",
    "text_encoder": "*.safetensors",
    "tokenizer": "*.json",
    "scheduler": "*.json",
}
PIXEL_PARTS = {"unet": "*.safetensors", "scheduler": "*.json"}


def locate(weights: str, parts: dict[str, str] | None = None) -> Path:
    """`embedded:digits/blip` -> the folder inside the package; anything else is a path. Raises if nothing is there.

    `parts` are subfolders that must be there too, each with a file of that pattern.
    """
    embedded = weights.startswith(EMBEDDED)
    path = ZOO / weights.removeprefix(EMBEDDED) if embedded else Path(weights).expanduser()
    mend = (
        "reinstall lgap-bench or run `make zoo`"
        if embedded
        else "give a folder written by save_pretrained (safetensors)"
    )
    if not path.is_dir() or not any(path.rglob("*.safetensors")):
        raise ValueError(f"weights={weights}: no *.safetensors in {path}: {mend}")
    for part, pattern in (parts or {}).items():
        if not any((path / part).glob(pattern)):
            raise ValueError(f"weights={weights}: no {pattern} in {path / part}: {mend}")
    return path


def size(path: str) -> int:
    """Bytes of a model's files: of one file, or of the safetensors in a folder; 0 where nothing is there."""
    place = ZOO / path.removeprefix(EMBEDDED) if path.startswith(EMBEDDED) else Path(path).expanduser()
    files = [place] if place.is_file() else place.rglob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def inspect(weights: str) -> None:
    """Refuse weights that are missing, cut off or (embedded ones) changed, before anything heavy is imported."""
    folder = locate(weights)
    if (folder / "model_index.json").is_file():
        locate(weights, LATENT_PARTS)
    expected = manifest() if weights.startswith(EMBEDDED) else {}
    for file in sorted(folder.rglob("*.safetensors")):
        problem = _damage(file)
        name = file.relative_to(ZOO).as_posix() if expected else file.name
        if problem is None and expected and expected.get(name) != sha256(file):
            problem = "its SHA-256 is not the one in the manifest"
        if problem:
            mend = "reinstall lgap-bench or run `make zoo`" if expected else "copy or download it again"
            raise ValueError(f"weights={weights}: {file} is damaged ({problem}): {mend}")


def manifest() -> dict[str, str]:
    """The embedded weights' SHA-256 by path below the zoo; empty while `make zoo` is still training them."""
    if not MANIFEST.exists():
        return {}
    return {name: digest for digest, name in (line.split() for line in MANIFEST.read_text().splitlines())}


def fingerprint(weights: str) -> str:
    """SHA-256 over the names and contents of all model files of the folder: part of a record's identity."""
    folder = locate(weights)
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".json", ".txt"):
            digest.update(f"{file.relative_to(folder).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()


def _damage(file: Path) -> str | None:
    """What is wrong with a safetensors file by its header: the length it promises against the length it has."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        if len(head) < 8:
            return f"{size} bytes long"
        (length,) = struct.unpack("<Q", head)
        if length > size - 8:
            return "its header is cut off or not safetensors"
        try:
            header = json.loads(stream.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
            end = max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            return "its header is not safetensors"
    return None if size == 8 + length + end else f"{size} bytes instead of {8 + length + end}"
