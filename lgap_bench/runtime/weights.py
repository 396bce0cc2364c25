"""Where weights lie, whether they are whole, and what identifies them. Without torch, so that errors come at once."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

from lgap_bench.runtime import header, hub, sources
from lgap_bench.runtime.digest import folder_sha256 as folder_sha256
from lgap_bench.runtime.digest import sha256 as sha256

EMBEDDED = "embedded:"
ZOO = Path(__file__).parents[1] / "zoo"
MANIFEST = ZOO / "SHA256SUMS"
SINGLE = (".safetensors", ".ckpt", ".pth", ".pt", ".pkl")  # whole models in one file, which loaders convert once


# What a latent diffusion model consists of, in Stable Diffusion's folder layout.
LATENT_PARTS = {
    "vae": "*.safetensors",
    "unet": "*.safetensors",
    "text_encoder": "*.safetensors",
    "tokenizer": "*.json",
    "scheduler": "*.json",
}
PIXEL_PARTS = {"unet": "*.safetensors", "scheduler": "*.json"}


# The text-to-image model of latent diffusion's own paper, in diffusers' layout: the same parts under other names.
LDM_PARTS = {
    "vqvae": "*.safetensors",
    "unet": "*.safetensors",
    "bert": "*.safetensors",
    "tokenizer": "*.json",
    "scheduler": "*.json",
}


def place(weights: str) -> Path:
    """Where these weights are, or would be: inside the package, in the hub's cache, or at a path.

    Raises ValueError for a name that is a model of the hub and a path here at once: nothing says which is meant.
    """
    if weights.startswith(EMBEDDED):
        return ZOO / weights.removeprefix(EMBEDDED)
    name, path = hub.parse(weights), Path(weights).expanduser()
    if name is None:
        return path
    held = hub.snapshot(name.repo, name.revision or sources.revision(name.repo))
    if path.exists() and (held or name.revision or name.repo in sources.manifest()):
        raise ValueError(
            f"weights={weights} is a model of the hub and a path here: write ./{weights} for the path, or rename it"
        )
    return held or path


def there(weights: str) -> bool:
    """Whether a folder or file is there at all; whether it is whole is `inspect`'s."""
    return place(weights).exists()


def locate(weights: str, parts: dict[str, str] | None = None) -> Path:
    """The folder of `embedded:digits/blip`, of a hub's name in its cache, or of a path. Raises ValueError if nothing is there.

    `parts` are subfolders that must be there too, each with a file of that pattern; `*.safetensors` may be `*.bin` too.
    """
    path = place(weights)
    if not path.exists() and (hub.parse(weights) or sources.of(weights)):
        raise ValueError(f"weights={weights}: not there ({_looked(weights)}): {sources.mend(weights)}")
    embedded = weights.startswith(EMBEDDED)
    mend = (
        "reinstall lgap-bench or run `make zoo`"
        if embedded
        else "give a folder written by save_pretrained (safetensors)"
    )
    if not path.is_dir() or not weight_files(path):
        raise ValueError(f"weights={weights}: no *.safetensors in {path}: {mend}")
    for part, pattern in (parts or {}).items():
        found = weight_files(path / part) if pattern == "*.safetensors" else list((path / part).glob(pattern))
        if not found:
            raise ValueError(f"weights={weights}: no {pattern} in {path / part}: {mend}")
    return path


def _looked(weights: str) -> str:
    """Where a missing thing was looked for."""
    name = hub.parse(weights)
    if name is None:
        return f"looked for {Path(weights).expanduser().absolute()}"
    wanted = name.revision or sources.revision(name.repo)
    return f"looked for revision {wanted} in {hub.cache()}, and for {Path(weights).absolute()}"


def files(folder: Path) -> list[Path]:
    """Every file below a folder, also behind links to folders, in the order of their paths."""
    return sorted(Path(base) / name for base, _, names in os.walk(folder, followlinks=True) for name in names)


def weight_files(folder: Path) -> list[Path]:
    """The files of tensors below a folder: safetensors, and `.bin` where a folder has no safetensors beside it."""
    found = files(folder)
    safe = {file.parent for file in found if file.suffix == ".safetensors"}
    return [
        each for each in found if each.suffix == ".safetensors" or (each.suffix == ".bin" and each.parent not in safe)
    ]


def size(weights: str) -> int:
    """Bytes of a model's files: of one file, or of the tensors in a folder; 0 where nothing is there."""
    path = place(weights)
    return sum(file.stat().st_size for file in ([path] if path.is_file() else weight_files(path)))


def inspect(weights: str) -> None:
    """Refuse weights that are missing, cut off or (embedded ones) changed, before anything heavy is imported."""
    path = place(weights)
    if path.is_file() and path.suffix in SINGLE:
        return _inspect(weights, path, {})
    folder = locate(weights)
    if (folder / "model_index.json").is_file():
        locate(weights, LDM_PARTS if (folder / "bert").is_dir() else LATENT_PARTS)
    expected = manifest() if weights.startswith(EMBEDDED) else {}
    for file in weight_files(folder):
        _inspect(weights, file, expected)


def _inspect(weights: str, file: Path, expected: dict[str, str]) -> None:
    """One file of tensors: whole, and the manifest's where there is one."""
    problem = header.damage(file) if file.suffix == ".safetensors" else _broken(file)
    if problem is None and expected and expected.get(file.relative_to(ZOO).as_posix()) != sha256(file):
        problem = "its SHA-256 is not the one in the manifest"
    if problem:
        mend = "reinstall lgap-bench or run `make zoo`" if expected else "copy or download it again"
        raise ValueError(f"weights={weights}: {file} is damaged ({problem}): {mend}")


def _broken(file: Path) -> str | None:
    """What is wrong with a PyTorch or pickle file by its ends: a page saved under its name, an archive that was cut off."""
    if not file.exists():
        return "a link to a file that is not there"
    with file.open("rb") as stream:
        head = stream.read(2)
    if not head:
        return "0 bytes long"
    return header.other(file) or ("cut off" if head == b"PK" and not zipfile.is_zipfile(file) else None)


def manifest() -> dict[str, str]:
    """The embedded weights' SHA-256 by path below the zoo; empty while `make zoo` is still training them."""
    if not MANIFEST.exists():
        return {}
    return {name: digest for digest, name in (line.split() for line in MANIFEST.read_text().splitlines())}


def fingerprint(weights: str) -> str:
    """SHA-256 over the names and contents of all model files of the folder, or of the one file: part of a record's identity."""
    path = place(weights)
    if path.is_file() and path.suffix in SINGLE:
        return sha256(path)
    folder = locate(weights)
    digest = hashlib.sha256()
    tensors = set(weight_files(folder))
    for file in files(folder):
        if file.suffix in (".json", ".txt") or file in tensors:
            digest.update(f"{file.relative_to(folder).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()
