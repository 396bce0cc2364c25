"""`lgap-bench fetch <the words of run, tables or names>`: what they need, from where, how large; what is not here is fetched."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from lgap_bench import CONF
from lgap_bench.cell.compose import composed, resolved
from lgap_bench.cell.form import check_overrides, with_home
from lgap_bench.cell.needs import Need, needs
from lgap_bench.runtime import download, hub, sources
from lgap_bench.runtime.files import write_text
from lgap_bench.runtime.offline import asked_for
from lgap_bench.sweep.tables import grids, items

USAGE = (
    "nothing is named: lgap-bench fetch experiment=lgap/table1/lgap, a table (lgap/1), a paper (lgap), or a model "
    "(CompVis/stable-diffusion-v1-4)"
)
OWN = ("offline=", "slow=")  # words of this command alone


def main() -> None:
    """List what is needed, fetch what is not here. Exit code 1 if something is missing afterwards."""
    words = with_home(sys.argv[1:])
    offline = asked_for("offline=true" in words)
    wanted = wanted_by(words)
    lacking = [need for need in wanted if not need.here()]
    print("\n".join(listed(wanted, lacking)), flush=True)
    failed = [need for need in lacking if offline or not _fetched(need)]
    if failed:
        print(
            f"lgap-bench: {len(failed)} of {len(wanted)} are not here" + (" (offline)" if offline else ""),
            file=sys.stderr,
        )
    sys.exit(int(bool(failed)))


def wanted_by(words: Sequence[str]) -> list[Need]:
    """What these words need, each thing once. Raises ValueError for words that name nothing."""
    names = [word for word in words if "=" not in word and not word.startswith("-")]
    given = [word for word in words if "=" in word and not word.startswith(OWN)]
    check_overrides(given)
    tables = [name for name in names if not (sources.of(name) or (hub.parse(name) and not _is_table(name)))]
    found: dict[str, Need] = {}
    for name in names:
        if name not in tables:
            found.setdefault(name, _named(name, given))
    if tables or not names:
        if not (
            tables
            or any(word.startswith(("experiment", "+experiment", "dataset", "prior", "purifier")) for word in given)
        ):
            raise ValueError(USAGE)
        for job in jobs(tables, given, slow="slow=true" in words):
            for need in needs(resolved(job)):
                found.setdefault(need.value, need)
    return list(found.values())


def jobs(tables: Sequence[str], given: Sequence[str], slow: bool = True) -> Iterator[list[str]]:
    """The overrides of every cell: of the tables with the given words, or of those words alone."""
    own = [word for word in given if word != "dry=true"]
    miniature = any(word.startswith("dataset=") for word in own)
    each = grids(items(tables), miniature, slow) if tables else [[]]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        found = [
            job for grid in each for job in BasicSweeper.split_arguments(parser.parse_overrides([*grid, *own]), None)[0]
        ]
    print(f"looking at {len(found)} {'cell' if len(found) == 1 else 'cells'}", file=sys.stderr, flush=True)
    yield from (list(job) for job in found)


def listed(wanted: Sequence[Need], lacking: Sequence[Need]) -> list[str]:
    """The list: what is here, what is to be fetched, what has to be got by hand; from where, how large, its licence."""
    size = sum(need.source.size for need in lacking if need.source)
    lines = [f"{len(wanted)} things are needed, {len(wanted) - len(lacking)} are here; to get: about {_bytes(size)}"]
    for need in wanted:
        source, lacks = need.source, need in lacking
        by_hand = source is None or source.kind == "hand"
        state = ("by hand" if by_hand else "to fetch") if lacks else "here"
        told = f", about {_bytes(source.size)}, {source.licence}" if source and source.size else ""
        lines.append(f"  {state:8}  {need.name}{told}; for {need.part}")
        if lacks:
            lines.append(f"            {_origin(source) if source else need.mend()}")
            lines += [f"            instead: {source.instead}"] if source and source.instead else []
    return lines


def _origin(source: sources.Source) -> str:
    """Where it comes from, in words."""
    told = {
        "hub": f"from the hub, revision {sources.revision(source.name)}",
        "gdrive": f"from Google Drive, {source.at}",
        "robustbench": "by RobustBench's own download",
        "torchvision": "by torchvision's own download",
    }
    return told.get(source.kind, f"from {source.at}")


def _bytes(size: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit / 10:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.0f} kB"


def _is_table(name: str) -> bool:
    return (CONF / "table" / f"{name}.yaml").exists()


def _named(name: str, given: Sequence[str]) -> Need:
    """One thing by its own name: a model of the hub, a file below `checkpoints` or `data`, a data set."""
    source = sources.of(name)
    if source is not None and (CONF / "dataset" / f"{name}.yaml").exists():
        return next(need for need in needs(resolved([f"dataset={name}", *given])) if need.source is source)
    if source is None or source.kind == "hub":
        parsed = hub.parse(name)
        assert parsed is not None
        return Need("weights", name, "you", download.named(parsed.repo))
    key = "data" if source.data else "checkpoints"
    root = next((word.partition("=")[2] for word in given if word.startswith(f"{key}=")), str(composed([])[key]))
    return Need("file", str(Path(root) / source.name), "you", source)


def _fetched(need: Need) -> bool:
    """Fetch one thing; False, and why, where that could not be done."""
    source = need.source
    try:
        if source is None or source.kind == "hand":
            raise ValueError(f"{need.name}: {need.mend()}")
        path = Path(need.value).expanduser()
        ways: dict[str, Callable[[], object]] = {
            "hub": lambda: download.from_hub(source, _revision(need.value)),
            "url": lambda: download.from_url(source, path),
            "gdrive": lambda: download.from_url(source, path),
            "robustbench": lambda: _from_robustbench(source, path),
            "torchvision": lambda: _from_torchvision(source, path),
            "made": lambda: write_text(path, imagenet_classes()),
        }
        ways[source.kind]()
        print(f"fetched {need.name}", flush=True)
    except ValueError as error:
        print(f"lgap-bench: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _revision(value: str) -> str | None:
    parsed = hub.parse(value)
    return parsed.revision if parsed else None


def _from_robustbench(source: sources.Source, path: Path) -> None:
    """RobustBench's own download of `<dataset>/<threat>/<name>.pt`."""
    from lgap_bench.classifier.robustbench import model_table
    from lgap_bench.runtime.libraries import robustbench

    robustbench()
    from robustbench.utils import download_gdrive

    dataset, threat, name = path.with_suffix("").parts[-3:]
    identity = model_table(dataset, threat)[name]["gdrive_id"]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        download_gdrive(identity, str(part))
    except OSError as error:  # requests' errors are
        part.unlink(missing_ok=True)
        raise ValueError(
            f"{source.name}: RobustBench's download broke off ({' '.join(str(error).split())[:200]}): call again"
        ) from None
    download.place(source, part, path)


def _from_torchvision(source: sources.Source, root: Path) -> None:
    """A data set that torchvision downloads, checks by MD5 and unpacks."""
    from torchvision import datasets

    try:
        getattr(datasets, source.at)(root, download=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{source.name}: torchvision could not fetch it ({' '.join(str(error).split())[:200]}): call again"
        ) from None


def imagenet_classes() -> str:
    """ImageNet's class words, one a line, as torchvision names them."""
    from torchvision.models import ResNet50_Weights

    words: list[str] = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    return "".join(f"{word}\n" for word in words)
