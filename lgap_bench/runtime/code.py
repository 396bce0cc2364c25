"""Which code makes a cell's numbers: digests of modules that are not this release's own, or no longer as released.

A digest is taken of the syntax tree without comments, docstrings and layout, so that only what a module does counts.
What a module imports is followed, save for installed libraries, whose versions stand in run.json.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from lgap_bench.runtime.files import content_id

PACKAGE = "lgap_bench"
INSTALLED = frozenset(("site-packages", "dist-packages"))  # folders of libraries
ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "runtime" / "released.json"  # module -> [SHA-256 of the file, digest, modules it imports]


def changed(targets: Iterable[str]) -> dict[str, str]:
    """Module -> digest of everything behind the `targets` (dotted names) that this release does not pin.

    Empty where all of it is released code as it was released. Raises ValueError for a file that is no Python.
    """
    known, found = released(), {}
    todo, seen = [_module_of(target) for target in targets], set()
    while todo:
        name = todo.pop()
        file = None if name is None or name in seen else _file(name)
        if name is None or file is None:
            continue
        seen.add(name)
        todo.append(name.rpartition(".")[0] or None)  # importing a module runs its packages' __init__.py
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        entry = known.get(name)
        if entry is not None and entry[0] == content:  # byte for byte as released: nothing is parsed
            todo += entry[2]
            continue
        own, imports = _parsed(file, name, content)
        if entry is None or entry[1] != own:
            found[name] = own
        todo += imports
    return dict(sorted(found.items()))


def manifest() -> dict[str, tuple[str, str, list[str]]]:
    """Every module of the package as it is now, for `released.json`; whoever edits one writes the file anew."""
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        name = ".".join((PACKAGE, *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        found[name] = (content, *_parsed(file, name, content))
    return found


@functools.cache
def released() -> dict[str, tuple[str, str, list[str]]]:
    """The manifest of this release; empty in a checkout that has lost it, where all code counts as changed."""
    return json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {}


def release() -> str:
    """16 hex digits of all code of this release, as it was released."""
    return content_id(released())


def _module_of(target: str) -> str | None:
    """The longest prefix of a dotted name that is a module: `a.b.Class` -> `a.b`."""
    parts = target.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if _file(name) is not None:
            return name
    return None


@functools.cache
def _file(name: str) -> Path | None:
    """A module's source file, of this package or of the user's own code; None for installed libraries and the standard's.

    Found by the path below its top-level package: asking Python for `a.b` would import `a`.
    """
    top, *rest = name.split(".")
    folder = None if top in sys.stdlib_module_names or not top else _top(top)
    if folder is None:
        return None
    if not rest and folder.is_file():
        return folder
    package, module = folder.joinpath(*rest), folder.joinpath(*rest[:-1], f"{(rest or [top])[-1]}.py")
    return next((file for file in (package / "__init__.py", module) if file.is_file()), None)


@functools.cache
def _top(name: str) -> Path | None:
    """Where a top-level package or lone module lies, if it is nobody's installed library."""
    spec = importlib.util.find_spec(name)
    origin = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    if origin is None or (name != PACKAGE and not INSTALLED.isdisjoint(Path(origin).parts)):
        return None
    file = Path(origin)
    return file.parent if file.name == "__init__.py" else file


@functools.lru_cache(maxsize=512)
def _parsed(file: Path, name: str, content: str) -> tuple[str, list[str]]:
    """Digest of a module's syntax tree, and the modules that it imports, libraries left out."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:  # null bytes are a ValueError to some versions
        where = f"{error.msg}, line {error.lineno}" if isinstance(error, SyntaxError) else str(error)
        raise ValueError(f"{file} is no Python ({where}): mend the file") from None
    imports = sorted(_imports(tree, name, is_package=file.name == "__init__.py"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _imports(tree: ast.Module, name: str, is_package: bool) -> set[str]:
    """Modules with a source of their own that this one imports: of this package, and for the user's code of his own too."""
    top, found = name.split(".")[0], set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".") if is_package else name.split(".")[:-1]
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for each in names:
            beside = top not in ("", PACKAGE) or each.split(".")[0] == PACKAGE
            if beside and each != name and _file(each) is not None:
                found.add(each)
    return found
